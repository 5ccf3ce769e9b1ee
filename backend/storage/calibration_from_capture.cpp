#include <ATen/ATen.h>

#include "backend/method.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {

Calibration calibration_from_capture(CaptureReader& capture) {
  const CaptureInfo& info = capture.info();
  if (info.linears.empty()) {
    throw Error(ErrorCode::NotFound,
                "'" + info.path + "' holds no activation statistics. Capture again with the tap \"activations\".");
  }
  Calibration calibration;
  calibration.model_fingerprint = info.model_fingerprint;
  calibration.source = info.text_source;
  for (const std::string& linear : info.linears) {
    const ActivationStats stats = capture.activation_stats(linear);
    at::Tensor absmax = at::empty({static_cast<std::int64_t>(stats.absmax.size())}, at::kFloat);
    std::copy(stats.absmax.begin(), stats.absmax.end(), absmax.data_ptr<float>());
    calibration.activation_absmax.emplace(linear, std::move(absmax));
    calibration.tokens = stats.tokens;
  }
  return calibration;
}

}  // namespace qs
