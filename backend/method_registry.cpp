#include "backend/method_registry.h"

#include <algorithm>

#include "backend/methods/declared_methods.h"
#include "backend/methods/setup_spellings.h"
#include "backend/types/error.h"

namespace qs {
namespace {

template <typename Entry>
std::vector<MethodInfo> infos_of(const std::vector<Entry>& entries) {
  std::vector<MethodInfo> infos;
  for (const Entry& entry : entries) infos.push_back(entry.info);
  return infos;
}

template <typename Entry>
auto make_from(const std::vector<Entry>& entries, const Setup& setup, const char* side) {
  for (const Entry& entry : entries) {
    if (entry.info.id == setup.method) return entry.make(setup.params);
  }
  std::string known;
  for (const Entry& entry : entries) known += (known.empty() ? "" : ", ") + entry.info.id;
  throw Error(ErrorCode::NotFound,
              "There is no " + std::string(side) + " method '" + setup.method + "'; known are: " + known + ".");
}

}  // namespace

const std::vector<KvMethodEntry>& kv_methods() {
  static const std::vector<KvMethodEntry> all = {
      rtn_kv_method(),
      kivi_method(),
  };
  return all;
}

const std::vector<WeightMethodEntry>& weight_methods() {
  static const std::vector<WeightMethodEntry> all = {
      rtn_weight_method(),
      smoothquant_method(),
  };
  return all;
}

std::vector<MethodInfo> kv_method_infos() { return infos_of(kv_methods()); }

std::vector<MethodInfo> weight_method_infos() { return infos_of(weight_methods()); }

std::vector<MethodInfo> all_methods() {
  std::vector<MethodInfo> all = kv_method_infos();
  for (MethodInfo& info : weight_method_infos()) all.push_back(std::move(info));
  return all;
}

std::unique_ptr<KvMethod> make_kv_method(const Setup& setup) { return make_from(kv_methods(), setup, "KV"); }

std::unique_ptr<WeightMethod> make_weight_method(const Setup& setup) {
  return make_from(weight_methods(), setup, "weight");
}

std::optional<Setup> parse_kv_setup(std::string_view text) {
  std::optional<Setup> setup = parse_setup(canonical_kv_setup(text), kv_method_infos());
  if (setup)
    make_kv_method(*setup);  // says what single parameters cannot: a residual that is no multiple of the group, say
  return setup;
}

std::optional<Setup> parse_weight_setup(std::string_view text) {
  std::optional<Setup> setup = parse_setup(text, weight_method_infos());
  if (setup) make_weight_method(*setup);
  return setup;
}

}  // namespace qs
