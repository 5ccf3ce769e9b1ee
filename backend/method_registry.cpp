#include "backend/method_registry.h"

#include <algorithm>

#include "backend/methods/declared_methods.h"
#include "backend/methods/full_precision_kv.h"
#include "backend/methods/layerwise_params.h"
#include "backend/methods/setup_spellings.h"
#include "backend/methods/weight_chain.h"
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

/// Every method that a setup names: of all ranges of layers, and behind plus signs.
std::vector<const Setup*> parts_of(const Setup& setup) {
  std::vector<const Setup*> parts;
  const auto add = [&parts](const Setup& chain) {
    if (chain.method != "none") parts.push_back(&chain);
    for (const Setup& next : chain.then) parts.push_back(&next);
  };
  if (setup.layers.empty()) add(setup);
  for (const Setup& entry : setup.layers) add(entry);
  return parts;
}

bool part_needs_calibration(const Setup& part) {
  const KvMethodEntry& entry = kv_method_entry(part);
  return entry.info.needs_calibration && (entry.needs_artifact == nullptr || entry.needs_artifact(part.params));
}

void check_artifact(const Setup& setup, std::int64_t layers, const KvArtifact& artifact) {
  bool named = false;
  const std::optional<Setup> made_for = parse_setup(artifact.setup, kv_method_infos());
  for (const Setup* part : parts_of(setup)) {
    if (part->method != artifact.method) continue;
    named = true;
    const KvMethodEntry& entry = kv_method_entry(*part);
    if (entry.artifact_mismatch == nullptr) continue;
    const std::string why = made_for ? entry.artifact_mismatch(part->params, made_for->params) : "it names no setup.";
    if (!why.empty()) {
      throw Error(ErrorCode::InvalidArgument, "The calibration on '" + artifact.source + "' was made for '" +
                                                  artifact.setup + "': " + why + " Calibrate again for this setup.");
    }
  }
  if (!named) {
    throw Error(ErrorCode::InvalidArgument, "The calibration belongs to the method '" + artifact.method +
                                                "', not to '" + setup.method + "'. Calibrate again for this setup.");
  }
  if (static_cast<std::int64_t>(artifact.layers.size()) != layers) {
    throw Error(ErrorCode::InvalidArgument, "The calibration has " + std::to_string(artifact.layers.size()) +
                                                " layers, the model " + std::to_string(layers) +
                                                ". It was made on another model; calibrate again.");
  }
}

CalibrationNeeds needs_of_part(const Setup& part) {
  const WeightMethodEntry& entry = entry_of(weight_methods(), part, "weight");
  if (entry.needs) return entry.needs(part.params);
  CalibrationNeeds needs;
  if (!entry.info.needs_calibration) return needs;
  (entry.info.calibration_need == CalibrationNeed::TokenWindows ? needs.token_windows : needs.activation_maxima) = true;
  return needs;
}

template <typename Value>
Value param_or(const Setup& part, const char* key, Value absent) {
  const auto found = part.params.find(key);
  if (found == part.params.end()) return absent;
  const Value* value = std::get_if<Value>(&found->second);
  return value ? *value : absent;
}

bool quantizes_inputs(const Setup& part) { return param_or(part, "bits_a", 16) < 16; }

/// How the parts of a chain quantize attention products, as text to compare; empty when they do not. Parameters have
/// the same names in all methods (weights specification, section 15).
std::string attention_of(const Setup& chain) {
  for (const Setup* part : parts_of(chain)) {
    if (!quantizes_inputs(*part) || !param_or(*part, "quantize_attention", false)) continue;
    const std::string level = param_or(*part, "level", std::string());
    return std::to_string(param_or(*part, "bits_a", 16)) +
           (param_or(*part, "quantizer", std::string()) == "absmax" ? " absmax" : " affine") +
           (param_or(*part, "sym_a", false) ? " symmetric " : " ") + (level == "O2" || level == "O3" ? level : "") +
           param_or(*part, "v_axis", std::string());
  }
  return {};
}

/// DecoderWeights::attention holds for all layers.
void check_attention_agrees(const Setup& setup) {
  for (const Setup& entry : setup.layers) {
    if (attention_of(entry) == attention_of(setup.layers.front())) continue;
    throw Error(ErrorCode::InvalidArgument,
                "Per-layer setup: attention products are quantized in all layers alike or in none, and layers " +
                    setup.layers.front().range.text() + " and " + entry.range.text() +
                    " differ. Set quantize_attention=false in all of them, or give them the same settings.");
  }
}

std::unique_ptr<WeightMethod> make_weight_chain(const Setup& setup) {
  std::vector<NamedWeightMethod> stages;
  const Setup* inputs_by = nullptr;
  const std::vector<const Setup*> parts = parts_of(setup);
  for (const Setup* part : parts) {
    const WeightMethodEntry& entry = entry_of(weight_methods(), *part, "weight");
    const bool last = part == parts.back();
    if (!last && !entry.make_in_front)
      throw Error(ErrorCode::InvalidArgument, "Nothing can follow the weight method '" + part->method + "'.");
    if (inputs_by && quantizes_inputs(*part)) {
      throw Error(ErrorCode::InvalidArgument, "Both '" + inputs_by->method + "' and '" + part->method +
                                                  "' quantize the inputs of the linears; set bits_a=16 in one of "
                                                  "them.");
    }
    if (quantizes_inputs(*part)) inputs_by = part;
    stages.push_back(
        {last ? entry.make(part->params) : entry.make_in_front(part->params), setup_line(part->method, part->params)});
  }
  return std::make_unique<WeightChain>(std::move(stages));
}

std::string line_of(const Setup& chain) {
  std::string line;
  for (const Setup* part : parts_of(chain)) line += (line.empty() ? "" : "+") + setup_line(part->method, part->params);
  return line;
}

std::unique_ptr<WeightMethod> make_layered(const Setup& setup) {
  std::vector<LayeredWeightMethod::Entry> entries;
  for (const Setup& entry : setup.layers) {
    Setup alone = entry;
    alone.range = {};
    NamedWeightMethod part{nullptr, "none"};
    try {
      if (alone.method != "none") part = {make_weight_method(alone), line_of(alone)};
    } catch (const Error& error) {
      throw Error(error.code(), "Layers " + entry.range.text() + ": " + error.what());
    }
    entries.push_back({entry.range, std::move(part)});
  }
  check_attention_agrees(setup);
  windows_part(setup);
  return std::make_unique<LayeredWeightMethod>(std::move(entries));
}

}  // namespace

const std::vector<KvMethodEntry>& kv_methods() {
  static const std::vector<KvMethodEntry> all = {
      rtn_kv_method(), kivi_method(), skvq_method(), kvquant_method(), qaq_method(), decoquant_method(), scope_method(),
  };
  return all;
}

const std::vector<WeightMethodEntry>& weight_methods() {
  static const std::vector<WeightMethodEntry> all = {
      rtn_weight_method(),  gptq_method(),      spqr_method(),   bcq_method(),
      smoothquant_method(), zeroquant_method(), absmax_method(),
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

const Setup* calibrated_kv_part(const Setup& setup) {
  const Setup* found = nullptr;
  for (const Setup* part : parts_of(setup)) {
    if (!part_needs_calibration(*part)) continue;
    if (found && found->method != part->method)
      throw Error(ErrorCode::InvalidArgument, "A setup can hold one calibrated method; this one has '" + found->method +
                                                  "' and '" + part->method + "'. Use one of them in all layers.");
    if (!found) found = part;
  }
  return found;
}

bool needs_kv_calibration(const Setup& setup) { return calibrated_kv_part(setup) != nullptr; }

std::unique_ptr<KvMethod> make_kv_method_for(const Setup& setup, const KvPrompt& sample, std::uint64_t seed) {
  if (!needs_kv_calibration(setup)) return make_kv_method(setup);
  const KvMethodEntry& entry = kv_method_entry(setup);
  if (entry.calibrate_layer == nullptr) {
    throw Error(ErrorCode::InvalidArgument, "The KV method '" + setup.method +
                                                "' needs a calibration with the model. Calibrate it first "
                                                "(quantoscope-cli calibrate) and name the file.");
  }
  const KvLayerArtifact artifact = entry.calibrate_layer(sample, setup.params, seed);
  return make_kv_method(setup, &artifact);
}

std::unique_ptr<KvMethod> make_kv_method(const Setup& setup, const KvLayerArtifact* artifact) {
  if (!setup.layers.empty())
    throw Error(ErrorCode::InvalidArgument, "A per-layer setup is no single method; choose one layer of it.");
  if (setup.method == "none") return std::make_unique<FullPrecisionKv>();
  std::unique_ptr<KvMethod> method = kv_method_entry(setup).make(setup.params, artifact);
  const Setup* before = &setup;
  for (const Setup& next : setup.then) {
    const KvMethodEntry& entry = kv_method_entry(next);
    if (entry.make_behind == nullptr)
      throw Error(ErrorCode::InvalidArgument, "'" + next.method + "' cannot stand behind a plus sign.");
    method = entry.make_behind(std::move(method), *before, next.params);
    before = &next;
  }
  return method;
}

std::shared_ptr<const KvPlan> make_kv_plan(const Setup& setup, std::int64_t layers, const KvArtifact* artifact) {
  check_covers(setup, layers);
  if (artifact) check_artifact(setup, layers, *artifact);
  std::vector<std::shared_ptr<const KvMethod>> methods;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const Setup& of_layer = setup_of_layer(setup, layer);
    const bool calibrated = artifact && artifact->method == of_layer.method;
    methods.push_back(
        make_kv_method(of_layer, calibrated ? &artifact->layers[static_cast<std::size_t>(layer)] : nullptr));
  }
  return std::make_shared<const KvPlan>(std::move(methods));
}

CalibrationNeeds weight_calibration_needs(const Setup& setup) {
  CalibrationNeeds needs;
  for (const Setup* part : parts_of(setup)) needs |= needs_of_part(*part);
  return needs;
}

const Setup* windows_part(const Setup& setup) {
  const Setup* found = nullptr;
  for (const Setup* part : parts_of(setup)) {
    if (!needs_of_part(*part).token_windows) continue;
    if (!found) found = part;
    for (const char* key : {"nsamples", "seqlen", "seed"}) {
      const int first = param_or(*found, key, 0), other = param_or(*part, key, 0);
      if (first == other) continue;
      throw Error(ErrorCode::InvalidArgument, "All parts of a setup learn from the same windows, and '" +
                                                  std::string(key) + "' is " + std::to_string(first) + " in one and " +
                                                  std::to_string(other) + " in another. Give them the same.");
    }
  }
  return found;
}

std::unique_ptr<WeightMethod> make_weight_method(const Setup& setup) {
  if (!setup.layers.empty()) return make_layered(setup);
  if (!setup.then.empty()) return make_weight_chain(setup);
  return entry_of(weight_methods(), setup, "weight").make(setup.params);
}

std::optional<Setup> parse_kv_setup(std::string_view text, std::vector<std::string>* warnings) {
  std::optional<Setup> setup = parse_setup(canonical_kv_setup(text, warnings), kv_method_infos());
  if (!setup) return setup;
  // Making the method says what single parameters cannot: a residual that is no multiple of the group, say.
  if (setup->layers.empty()) make_kv_method(*setup);
  for (const Setup& entry : setup->layers) {
    try {
      make_kv_method(entry);
    } catch (const Error& error) {
      throw Error(error.code(), "Layers " + entry.range.text() + ": " + error.what());
    }
  }
  calibrated_kv_part(*setup);
  return setup;
}

std::optional<Setup> parse_weight_setup(std::string_view text) {
  std::optional<Setup> setup = parse_setup(text, weight_method_infos());
  if (setup) make_weight_method(*setup);
  return setup;
}

}  // namespace qs
