#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/types/method_info.h"
#include "backend/types/setup.h"

namespace qs {

class KvMethod;
class KvPlan;
struct KvArtifact;
class WeightMethod;
struct KvMethodEntry;
struct WeightMethodEntry;

const std::vector<KvMethodEntry>& kv_methods();
const std::vector<WeightMethodEntry>& weight_methods();

/// Every method's declaration, KV methods first. `rtn` of the KV family and `rtn` of the weight family are two
/// declarations.
std::vector<MethodInfo> all_methods();
std::vector<MethodInfo> kv_method_infos();
std::vector<MethodInfo> weight_method_infos();  ///< weight and weight_activation

/// @param setup  complete and checked (parse_setup makes it so)
/// @throws Error NotFound for an unknown method
std::unique_ptr<KvMethod> make_kv_method(const Setup& setup);
/// @param artifact  null for methods that need no calibration
/// @throws Error InvalidArgument when the method needs an artifact and there is none, or it is another method's or
///         has other layers
std::shared_ptr<const KvPlan> make_kv_plan(const Setup& setup, std::int64_t layers, const KvArtifact* artifact);
std::unique_ptr<WeightMethod> make_weight_method(const Setup& setup);

/// parse_setup against the methods of one side. @throws Error InvalidArgument
std::optional<Setup> parse_kv_setup(std::string_view text);
std::optional<Setup> parse_weight_setup(std::string_view text);

}  // namespace qs
