#include "backend/methods/layerwise_checkpoint.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "backend/formats/safe_write.h"
#include "backend/formats/safetensors.h"
#include "backend/formats/sha256.h"
#include "backend/methods/stored_tensor.h"
#include "backend/methods/weight_codes.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using nlohmann::json;

constexpr const char* kFormat = "quantoscope-layerwise-1";

/// First and last rows of the weights of the first and the last block to be quantized: enough to tell a smoothed model
/// from the plain one.
std::string sample_of_weights(const DecoderWeights& weights, const WeightContext& context) {
  Sha256 hash;
  std::vector<std::size_t> layers;
  for (std::size_t layer = 0; layer < weights.blocks.size(); ++layer)
    if (context.quantizes(static_cast<std::int64_t>(layer))) layers.push_back(layer);
  if (layers.size() > 2) layers = {layers.front(), layers.back()};
  for (const std::size_t layer : layers) {
    DecoderBlock block = weights.blocks[layer];
    for (const LinearSlot& slot : linear_slots(block, static_cast<std::int64_t>(layer))) {
      require_floating_point(**slot.op, slot.name);
      const std::int64_t last = (*slot.op)->out_features() - 1;
      const at::Tensor ends =
          (*slot.op)->rows(at::tensor({std::int64_t{0}, last}, at::kLong)).to(at::kFloat).contiguous();
      hash.update({static_cast<const std::byte*>(ends.data_ptr()), static_cast<std::size_t>(ends.nbytes())});
    }
  }
  return hash.hex();
}

std::string hash_of_windows(const CalibrationWindows& windows) {
  Sha256 hash;
  for (const std::vector<std::int64_t>& window : windows.windows) hash.update(std::as_bytes(std::span(window)));
  return hash.hex();
}

json number(double value) { return std::isfinite(value) ? json(value) : json(); }

double number_of(const json& value) {
  return value.is_number() ? value.get<double>() : std::numeric_limits<double>::quiet_NaN();
}

json to_json(const LayerProgress& progress) {
  return {{"linear", progress.linear},
          {"layer", progress.layer},
          {"layers", progress.layers},
          {"loss", number(progress.loss)},
          {"rtn_loss", number(progress.rtn_loss)},
          {"seconds", number(progress.seconds)},
          {"damping", number(progress.damping)},
          {"tokens", progress.tokens},
          {"effective_bits", number(progress.effective_bits)},
          {"notes", progress.notes}};
}

LayerProgress progress_of(const json& value) {
  LayerProgress progress;
  progress.linear = value.at("linear").get<std::string>();
  progress.layer = value.at("layer").get<std::int64_t>();
  progress.layers = value.at("layers").get<std::int64_t>();
  progress.loss = number_of(value.at("loss"));
  progress.rtn_loss = number_of(value.at("rtn_loss"));
  progress.seconds = number_of(value.at("seconds"));
  progress.damping = number_of(value.at("damping"));
  progress.tokens = value.at("tokens").get<std::int64_t>();
  progress.effective_bits = number_of(value.at("effective_bits"));
  progress.notes = value.at("notes").get<std::vector<std::string>>();
  progress.resumed = true;
  return progress;
}

/// "mlp.up_proj" of "layers.7.mlp.up_proj".
std::string short_name(const std::string& name) {
  const std::size_t first = name.find('.'), second = name.find('.', first + 1);
  return second == std::string::npos ? name : name.substr(second + 1);
}

[[noreturn]] void throw_broken(const std::filesystem::path& file, const std::string& what) {
  throw Error(ErrorCode::BadFormat, "'" + file.string() + "' is no checkpoint of a block: " + what +
                                        ". Delete it to quantize the block again.");
}

}  // namespace

CheckpointIdentity checkpoint_identity(const Model& model, const DecoderWeights& weights, const WeightContext& context,
                                       const std::string& setup) {
  const CalibrationWindows& windows = *context.windows;
  CheckpointIdentity identity = {{"model", model.info().fingerprint},
                                 {"weights", sample_of_weights(weights, context)},
                                 {"compute type", model.options().dtype},
                                 {"calibration text", windows.source + " " + windows.source_sha256},
                                 {"number of windows", std::to_string(windows.windows.size())},
                                 {"seqlen", std::to_string(windows.seqlen)},
                                 {"seed", std::to_string(windows.seed)},
                                 {"window tokens", hash_of_windows(windows)},
                                 {"setup", setup}};
  if (!context.behind.empty()) identity["behind"] = context.behind;
  for (const LayerRange& range : context.layers) {
    std::string& layers = identity["layers"];
    layers += (layers.empty() ? "" : ",") + range.text();
  }
  return identity;
}

LayerwiseCheckpoint::LayerwiseCheckpoint(std::filesystem::path folder, const CheckpointIdentity& identity,
                                         bool ignore_setup)
    : folder_(std::move(folder)) {
  std::error_code problem;
  std::filesystem::create_directories(folder_, problem);
  if (!std::filesystem::is_directory(folder_)) {
    throw Error(ErrorCode::Io, "The checkpoint folder '" + folder_.string() + "' cannot be made" +
                                   (problem ? ": " + problem.message() : std::string()) + ".");
  }
  const std::filesystem::path path = folder_ / "setup.json";
  if (!std::filesystem::exists(path)) {
    for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
      if (entry.path().filename().string().rfind("layer-", 0) == 0)
        throw_broken(path, "it is missing beside blocks that it should describe");
    }
    write_file_safely(path, json{{"format", kFormat}, {"made_from", identity}}.dump(1) + "\n");
    return;
  }
  std::ifstream file(path);
  const json found = json::parse(file, nullptr, false);
  if (!found.is_object() || found.value("format", "") != kFormat || !found.contains("made_from") ||
      !found["made_from"].is_object()) {
    throw Error(ErrorCode::BadFormat, "'" + path.string() + "' does not describe a checkpoint of this version (" +
                                          kFormat + "). Choose another folder.");
  }
  std::string differing;
  std::set<std::string> names;
  for (const auto& [name, value] : identity) names.insert(name);
  for (const auto& [name, value] : found["made_from"].items()) names.insert(name);
  if (ignore_setup) names.erase("setup");
  for (const std::string& name : names) {
    const json& was = found["made_from"].value(name, json());
    const auto now = identity.find(name);
    if (was.is_string() && now != identity.end() && was.get<std::string>() == now->second) continue;
    differing += "\n  " + name + ": " + (was.is_string() ? was.get<std::string>() : std::string("nothing")) +
                 " there, " + (now == identity.end() ? std::string("nothing") : now->second) + " now";
  }
  if (!differing.empty()) {
    throw Error(ErrorCode::InvalidArgument, "The checkpoint in '" + folder_.string() +
                                                "' was made from something else, so it cannot be continued:" +
                                                differing + "\nUse the same settings or another folder.");
  }
}

std::filesystem::path LayerwiseCheckpoint::file(std::int64_t layer) const {
  char name[40];
  std::snprintf(name, sizeof name, "layer-%04lld.safetensors", static_cast<long long>(layer));
  return folder_ / name;
}

bool LayerwiseCheckpoint::has(std::int64_t layer) const { return std::filesystem::exists(file(layer)); }

void LayerwiseCheckpoint::save(std::int64_t layer, const std::vector<LinearArtifact>& artifacts) const {
  std::vector<at::Tensor> kept;
  std::vector<StoredTensor> stored;
  json linears = json::array();
  for (const LinearArtifact& artifact : artifacts) {
    linears.push_back(to_json(artifact.progress));
    for (const auto& [name, tensor] : artifact.tensors) {
      kept.push_back(tensor.contiguous());
      stored.push_back(stored_view(short_name(artifact.progress.linear) + "/" + name, kept.back()));
    }
  }
  write_safetensors(file(layer), stored, {{"format", kFormat}, {"linears", linears.dump()}});
}

std::vector<LinearArtifact> LayerwiseCheckpoint::load(std::int64_t layer, const std::vector<std::string>& names) const {
  const std::filesystem::path path = file(layer);
  const TensorTable table = read_safetensors(path);
  const auto metadata = [&](const char* key) {
    const auto found = table.metadata.find(key);
    return found == table.metadata.end() ? std::string() : found->second;
  };
  if (metadata("format") != kFormat) throw_broken(path, "its format is not " + std::string(kFormat));
  const json linears = json::parse(metadata("linears"), nullptr, false);
  if (!linears.is_array()) throw_broken(path, "it does not list its linears");
  std::vector<LinearArtifact> artifacts;
  for (const std::string& name : names) {
    LinearArtifact artifact;
    try {
      for (const json& linear : linears) {
        if (linear.at("linear") == name) artifact.progress = progress_of(linear);
      }
    } catch (const json::exception& error) {
      throw_broken(path, std::string("its list of linears cannot be read (") + error.what() + ")");
    }
    if (artifact.progress.linear.empty()) throw_broken(path, "it has no '" + name + "'");
    const std::string prefix = short_name(name) + "/";
    for (const StoredTensor& stored : table.tensors) {
      if (stored.name.rfind(prefix, 0) == 0) artifact.tensors[stored.name.substr(prefix.size())] = tensor_of(stored);
    }
    artifacts.push_back(std::move(artifact));
  }
  return artifacts;
}

}  // namespace qs
