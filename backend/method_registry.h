#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/types/calibration_needs.h"
#include "backend/types/method_info.h"
#include "backend/types/setup.h"

namespace at {
class Tensor;
}

namespace qs {

class KvMethod;
class KvPlan;
struct KvArtifact;
struct KvPrompt;
using KvLayerArtifact = std::map<std::string, at::Tensor>;
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

/// @param setup  complete and checked (parse_setup makes it so), for one layer; "none" gives 16-bit floats
/// @throws Error NotFound for an unknown method, InvalidArgument for a per-layer setup (see setup_of_layer)
std::unique_ptr<KvMethod> make_kv_method(const Setup& setup, const KvLayerArtifact* artifact = nullptr);
/// The first method of the setup, in a chain or of a range of layers, that needs a calibration; null when none does.
/// @throws Error InvalidArgument when two different methods do
const Setup* calibrated_kv_part(const Setup& setup);
/// @param artifact  null for methods that need no calibration
/// @throws Error InvalidArgument when the method needs an artifact and there is none, or it is another method's or
///         has other layers
std::shared_ptr<const KvPlan> make_kv_plan(const Setup& setup, std::int64_t layers, const KvArtifact* artifact);
/// The declaration with its functions. @throws Error NotFound for an unknown method
const KvMethodEntry& kv_method_entry(const Setup& setup);
/// Whether make_kv_plan needs an artifact for this setup.
bool needs_kv_calibration(const Setup& setup);
/// For benches and captures: `setup` for one layer of these keys and values, calibrated on them where it needs that.
/// @throws Error InvalidArgument when the method cannot be calibrated without a model
std::unique_ptr<KvMethod> make_kv_method_for(const Setup& setup, const KvPrompt& sample, std::uint64_t seed);
/// @param setup  as make_kv_method, but chains and per-layer setups too
/// @throws Error NotFound for an unknown method, InvalidArgument for parts that do not fit each other: two that quantize
///         the same inputs, layers that do not agree on attention products or calibration windows
std::unique_ptr<WeightMethod> make_weight_method(const Setup& setup);
/// What the setup learns from: all of its parts together, behind plus signs and of all ranges of layers.
CalibrationNeeds weight_calibration_needs(const Setup& setup);
/// The part whose nsamples, seqlen and seed cut the calibration windows; null when none needs windows.
const Setup* windows_part(const Setup& setup);

/// parse_setup against the methods of one side. @throws Error InvalidArgument
/// @param warnings  receives a sentence for each spelling that is accepted but wrong; may be null
std::optional<Setup> parse_kv_setup(std::string_view text, std::vector<std::string>* warnings = nullptr);
std::optional<Setup> parse_weight_setup(std::string_view text);

}  // namespace qs
