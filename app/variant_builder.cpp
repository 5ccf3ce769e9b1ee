#include "app/variant_builder.h"

#include <algorithm>

#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/calibration_windows.h"
#include "backend/evaluation/evaluate.h"
#include "backend/evaluation/kv_calibration.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {

bool needs_calibration(const std::string& line) {
  const std::optional<Setup> setup = parse_weight_setup(line);
  return setup && weight_calibration_needs(*setup).any();
}

std::shared_ptr<const Variant> build_variant(std::shared_ptr<const Model> model, const std::string& weights,
                                             const std::string& kv, CaptureReader* capture,
                                             const KvCalibrationPlace& kv_calibration, const JobContext& job,
                                             const WeightRunPlace& weight_run) {
  const std::optional<Setup> weight_setup = parse_weight_setup(weights);
  const std::optional<Setup> kv_setup = parse_kv_setup(kv);
  WeightContext context;
  context.checkpoint = weight_run.checkpoint;
  context.on_forecast = weight_run.on_forecast;
  context.on_linear = weight_run.on_linear;
  Calibration calibration;
  CalibrationWindows windows;
  const CalibrationNeeds needs = weight_setup ? weight_calibration_needs(*weight_setup) : CalibrationNeeds{};
  if (capture && needs.token_windows) {
    windows = calibration_windows(*model, capture->token_ids(), capture->info().text_source,
                                  capture->info().text_sha256, *weight_setup);
    context.windows = &windows;
  }
  if (capture && (needs.activation_maxima || needs.input_rows)) {
    calibration = calibration_from_capture(*capture);
    if (needs.input_rows) {
      calibration.input_rows =
          calibrate(*model, capture->token_ids(), 0, calibration.source, job.part(0.0, 0.1), kUsualInputSample)
              .input_rows;
    }
    context.calibration = &calibration;
  }
  std::optional<KvArtifact> artifact;
  if (kv_setup && needs_kv_calibration(*kv_setup)) {
    artifact = remembered_kv_calibration(*model, *kv_setup, {.text = read_text(kv_calibration.text)},
                                         kv_calibration.folder, job.part(0.0, 0.8));
  }
  const JobContext rest = artifact ? job.part(0.8, 1.0) : job;
  const auto make = [&](WeightExecution execution) {
    context.execution = execution;
    return make_variant(model, weight_setup, kv_setup, context, rest, artifact ? &*artifact : nullptr);
  };
  if (!weight_setup) return make(WeightExecution::Simulated);
  try {
    return make(WeightExecution::Packed);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::Unsupported) throw;
    return make(WeightExecution::Simulated);
  }
}

CaptureText encode_text(const Model& model, const std::string& path, std::int64_t tokens) {
  const EvalText text = read_text(path);
  // A token is at least one byte, and encoding a book for its first page would be a waste.
  const std::size_t bytes = std::min(text.text.size(), static_cast<std::size_t>(tokens) * 24 + 4096);
  std::size_t end = bytes;
  while (end > 0 && end < text.text.size() && (static_cast<unsigned char>(text.text[end]) & 0xC0) == 0x80) --end;
  CaptureText result{encode_with_bos(model.tokenizer(), std::string_view(text.text).substr(0, end)), text.name,
                     text.sha256};
  if (static_cast<std::int64_t>(result.ids.size()) < tokens) {
    throw Error(ErrorCode::InvalidArgument, "'" + path + "' has " + std::to_string(result.ids.size()) +
                                                " tokens for this model; " + std::to_string(tokens) +
                                                " were asked for. Use a longer text or fewer tokens.");
  }
  result.ids.resize(static_cast<std::size_t>(tokens));
  return result;
}

}  // namespace qs
