#include "app/layer_retry.h"

#include "backend/evaluation/calibration_windows.h"
#include "backend/method_registry.h"
#include "backend/methods/redo_layer.h"
#include "backend/model/model.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/error.h"

namespace qs {

void retry_layer(const Model& model, const std::string& weights, const std::string& other, std::int64_t layer,
                 CaptureReader& capture, const std::filesystem::path& checkpoint, const JobContext& job) {
  const std::optional<Setup> made = parse_weight_setup(weights), again = parse_weight_setup(other);
  if (!made || !again)
    throw Error(ErrorCode::InvalidArgument, "Redoing a layer needs the run's weight setup and the one for this layer.");
  const CalibrationWindows windows =
      calibration_windows(model, capture.token_ids(), capture.info().text_source, capture.info().text_sha256, *made);
  WeightContext context;
  Calibration calibration;
  if (weight_calibration_needs(*made).activation_maxima) {
    calibration = calibration_from_capture(capture);
    context.calibration = &calibration;
  }
  context.windows = &windows;
  context.checkpoint = checkpoint;
  redo_layer(model, *again, layer, context, job);
}

}  // namespace qs
