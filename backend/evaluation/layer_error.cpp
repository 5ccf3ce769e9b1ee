#include "backend/evaluation/layer_error.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "backend/methods/smoothing.h"
#include "backend/model/decoder.h"

namespace qs {

std::vector<std::vector<double>> pair_output_errors(const Model& model, const Calibration& calibration,
                                                    const std::vector<PairPoint>& points, const JobContext& job) {
  const c10::NoGradGuard no_grad;
  const std::vector<SmoothingPair> pairs = smoothing_pairs(model.spec());
  const auto layers = static_cast<std::int64_t>(model.weights().blocks.size());
  const std::int64_t total = layers * static_cast<std::int64_t>(pairs.size() * points.size());
  std::int64_t done = 0;
  std::vector<std::vector<double>> errors(points.size());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    DecoderBlock block = model.weights().blocks[static_cast<std::size_t>(layer)];
    for (const SmoothingPair& pair : pairs) {
      job.checkpoint(done, total, "Comparing layer outputs");
      const PairError error(pair_view(block, layer, pair, calibration), calibrated_rows(calibration, pair, layer));
      for (std::size_t i = 0; i < points.size(); ++i) {
        job.checkpoint(done++, total, "Comparing layer outputs");
        errors[i].push_back(error.mse(points[i].alpha, points[i].quantizers));
      }
    }
  }
  job.checkpoint(total, total, "Comparing layer outputs");
  return errors;
}

}  // namespace qs
