#include "backend/evaluation/kv_calibration.h"

#include <algorithm>
#include <random>

#include "backend/formats/sha256.h"
#include "backend/method_registry.h"
#include "backend/model/torch_error.h"
#include "backend/storage/kv_artifact.h"
#include "backend/tokenizer/tokenizer.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kLongestWindow = 2048;

/// What a calibration is made for: the calibrated method of a chain or of a range of layers.
Setup part_to_calibrate(const Setup& setup) {
  const Setup* const part = calibrated_kv_part(setup);
  Setup alone = part ? *part : setup;
  alone.then.clear();
  alone.range = {};
  return alone;
}

}  // namespace

std::vector<std::vector<std::int64_t>> draw_windows(const Model& model, const KvCalibrationRequest& request) {
  const std::vector<std::int64_t> ids = encode_with_bos(model.tokenizer(), request.text.text);
  const auto tokens = static_cast<std::int64_t>(ids.size());
  const std::int64_t context = model.info().max_context;
  const std::int64_t window = request.window > 0 ? request.window : std::min({kLongestWindow, context, tokens});
  if (window < 2 || window > context || window > tokens) {
    throw Error(ErrorCode::InvalidArgument, "Calibration windows of " + std::to_string(window) +
                                                " tokens do not fit: the context of '" + model.info().name + "' is " +
                                                std::to_string(context) + " tokens, '" + request.text.name + "' has " +
                                                std::to_string(tokens) + ". Use shorter windows or a longer text.");
  }
  if (request.windows < 1)
    throw Error(ErrorCode::InvalidArgument,
                "A calibration needs at least one window, found " + std::to_string(request.windows) + ".");
  std::mt19937_64 generator(request.seed);
  std::vector<std::vector<std::int64_t>> windows;
  for (std::int64_t i = 0; i < request.windows; ++i) {
    const auto begin = static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(tokens - window + 1));
    windows.emplace_back(ids.begin() + begin, ids.begin() + begin + window);
  }
  return windows;
}

KvArtifact calibrate_kv(const Model& model, const Setup& whole_setup, const KvCalibrationRequest& request,
                        const JobContext& job) {
  const Setup setup = part_to_calibrate(whole_setup);
  const KvMethodEntry& entry = kv_method_entry(setup);
  if (entry.calibrate == nullptr) {
    throw Error(ErrorCode::InvalidArgument,
                "The KV method '" + setup.method + "' needs no calibration; use it as it is.");
  }
  const ModelInfo& info = model.info();
  KvArtifact artifact{.method = setup.method,
                      .setup = format_setup(setup, kv_method_infos()),
                      .model_fingerprint = info.fingerprint,
                      .model_name = info.name,
                      .source = request.text.name,
                      .source_sha256 = request.text.sha256,
                      .kv_heads = info.kv_heads,
                      .head_dim = info.head_dim,
                      .seed = request.seed};
  KvCalibrationInput input{model, draw_windows(model, request), request.seed};
  artifact.windows = static_cast<std::int64_t>(input.windows.size());
  artifact.window = static_cast<std::int64_t>(input.windows.front().size());
  artifact.tokens = artifact.windows * artifact.window;
  translate_torch_errors("Calibrating", [&] { artifact.layers = entry.calibrate(input, setup.params, job); });
  return artifact;
}

std::filesystem::path kv_calibration_file(const Model& model, const Setup& whole_setup,
                                          const KvCalibrationRequest& request, const std::filesystem::path& folder) {
  const Setup setup = part_to_calibrate(whole_setup);
  const std::string key = model.info().fingerprint + "\n" + format_setup(setup, kv_method_infos()) + "\n" +
                          request.text.sha256 + "\n" + std::to_string(request.windows) + "\n" +
                          std::to_string(request.window) + "\n" + std::to_string(request.seed) + "\n" +
                          QUANTOSCOPE_VERSION;
  return folder / (setup.method + "-" + sha256_hex(key).substr(0, 24) + ".h5");
}

KvArtifact remembered_kv_calibration(const Model& model, const Setup& whole_setup, const KvCalibrationRequest& request,
                                     const std::filesystem::path& folder, const JobContext& job) {
  const Setup setup = part_to_calibrate(whole_setup);
  const std::filesystem::path file = kv_calibration_file(model, setup, request, folder);
  std::error_code failure;
  if (std::filesystem::exists(file, failure)) {
    try {
      KvArtifact artifact = read_kv_artifact(file);
      if (artifact.model_fingerprint == model.info().fingerprint && artifact.method == setup.method) return artifact;
    } catch (const Error&) {
      // made again below
    }
  }
  const KvArtifact artifact = calibrate_kv(model, setup, request, job);
  std::filesystem::create_directories(folder, failure);
  try {
    write_kv_artifact(file, artifact);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::Io) throw;
  }
  return artifact;
}

}  // namespace qs
