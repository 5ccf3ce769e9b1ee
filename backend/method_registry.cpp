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
const Entry& entry_of(const std::vector<Entry>& entries, const Setup& setup, const char* side) {
  for (const Entry& entry : entries) {
    if (entry.info.id == setup.method) return entry;
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
      skvq_method(),
      kvquant_method(),
      qaq_method(),
      decoquant_method(),
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

const KvMethodEntry& kv_method_entry(const Setup& setup) { return entry_of(kv_methods(), setup, "KV"); }

bool needs_kv_calibration(const Setup& setup) {
  const KvMethodEntry& entry = kv_method_entry(setup);
  return entry.info.needs_calibration && (entry.needs_artifact == nullptr || entry.needs_artifact(setup.params));
}

std::unique_ptr<KvMethod> make_kv_method_for(const Setup& setup, const KvPrompt& sample, std::uint64_t seed) {
  const KvMethodEntry& entry = kv_method_entry(setup);
  if (!needs_kv_calibration(setup)) return entry.make(setup.params, nullptr);
  if (entry.calibrate_layer == nullptr) {
    throw Error(ErrorCode::InvalidArgument, "The KV method '" + setup.method +
                                                "' needs a calibration with the model. Calibrate it first "
                                                "(quantoscope-cli calibrate) and name the file.");
  }
  const KvLayerArtifact artifact = entry.calibrate_layer(sample, setup.params, seed);
  return entry.make(setup.params, &artifact);
}

std::unique_ptr<KvMethod> make_kv_method(const Setup& setup) {
  return entry_of(kv_methods(), setup, "KV").make(setup.params, nullptr);
}

std::shared_ptr<const KvPlan> make_kv_plan(const Setup& setup, std::int64_t layers, const KvArtifact* artifact) {
  const KvMethodEntry& entry = entry_of(kv_methods(), setup, "KV");
  if (artifact && artifact->method != setup.method) {
    throw Error(ErrorCode::InvalidArgument, "The calibration belongs to the method '" + artifact->method +
                                                "', not to '" + setup.method + "'. Calibrate again for this setup.");
  }
  if (artifact && static_cast<std::int64_t>(artifact->layers.size()) != layers) {
    throw Error(ErrorCode::InvalidArgument, "The calibration has " + std::to_string(artifact->layers.size()) +
                                                " layers, the model " + std::to_string(layers) +
                                                ". It was made on another model; calibrate again.");
  }
  if (artifact && entry.artifact_mismatch != nullptr) {
    const std::optional<Setup> calibrated = parse_setup(artifact->setup, kv_method_infos());
    const std::string why =
        calibrated ? entry.artifact_mismatch(setup.params, calibrated->params) : "it names no setup.";
    if (!why.empty()) {
      throw Error(ErrorCode::InvalidArgument, "The calibration on '" + artifact->source + "' was made for '" +
                                                  artifact->setup + "': " + why + " Calibrate again for this setup.");
    }
  }
  std::vector<std::shared_ptr<const KvMethod>> methods;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    methods.push_back(
        entry.make(setup.params, artifact ? &artifact->layers[static_cast<std::size_t>(layer)] : nullptr));
  }
  return std::make_shared<const KvPlan>(std::move(methods));
}

std::unique_ptr<WeightMethod> make_weight_method(const Setup& setup) {
  return entry_of(weight_methods(), setup, "weight").make(setup.params);
}

std::optional<Setup> parse_kv_setup(std::string_view text, std::vector<std::string>* warnings) {
  std::optional<Setup> setup = parse_setup(canonical_kv_setup(text, warnings), kv_method_infos());
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
