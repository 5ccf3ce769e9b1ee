#include "backend/methods/kv_gradients.h"
#include "backend/methods/kvquant_fit.h"
#include "backend/methods/kv_groups.h"
#include "backend/model/decoder.h"
#include "backend/model/in_layer.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

class CollectKeys final : public TapSink {
 public:
  explicit CollectKeys(std::vector<LayerCalibration>& layers) : layers_(layers) {}
  void on_attention(const AttentionCall& call) override {
    in_layer(call.layer, [&] {
      check_finite(call.key_pre_rope, KvRole::Key, call.first_position);
      check_finite(call.value, KvRole::Value, call.first_position);
    });
    layers_[static_cast<std::size_t>(call.layer)].add_keys(call.key_pre_rope);
  }

 private:
  std::vector<LayerCalibration>& layers_;
};

}  // namespace

std::vector<KvLayerArtifact> calibrate_kvquant(const KvCalibrationInput& input, const ParamSet& params,
                                               const JobContext& job) {
  const KvquantSettings settings = KvquantSettings::from(params);
  const ArchitectureSpec& spec = input.model.spec();
  std::int64_t tokens = 0;
  for (const std::vector<std::int64_t>& window : input.windows) tokens += static_cast<std::int64_t>(window.size());
  if (tokens == 0) throw Error(ErrorCode::InvalidArgument, "kvquant cannot be calibrated on no tokens at all.");
  std::vector<LayerCalibration> layers(static_cast<std::size_t>(spec.layers), LayerCalibration(tokens, settings));
  const auto windows = static_cast<double>(input.windows.size());

  for (std::size_t i = 0; i < input.windows.size(); ++i) {
    const auto done = static_cast<double>(i);
    FullPrecisionWindow attention;
    CollectKeys keys(layers);
    forward(spec, input.model.weights(), RaggedBatch::single(input.windows[i]), attention, LogitRows::None, &keys,
            job.part(0.25 * done / windows, 0.25 * (done + 1.0) / windows));
  }
  for (LayerCalibration& layer : layers) layer.fix_thresholds();

  for (std::size_t i = 0; i < input.windows.size(); ++i) {
    const auto done = static_cast<double>(i);
    const JobContext part = job.part(0.25 + 0.74 * done / windows, 0.25 + 0.74 * (done + 1.0) / windows);
    std::vector<ProjectionGradients> gradients =
        projection_gradients(input.model, input.windows[i], part.part(0.0, 0.8));
    for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
      part.part(0.8, 1.0).checkpoint(layer, spec.layers, "Fitting levels");
      ProjectionGradients& of_layer = gradients[static_cast<std::size_t>(layer)];
      layers[static_cast<std::size_t>(layer)].fit(of_layer.key_pre_rope, of_layer.value, of_layer.key_gradient,
                                                  of_layer.value_gradient);
      of_layer = {};
    }
  }

  std::vector<KvLayerArtifact> artifacts;
  for (const LayerCalibration& layer : layers) {
    job.part(0.99, 1.0).checkpoint(static_cast<std::int64_t>(artifacts.size()), spec.layers, "Fitting levels");
    artifacts.push_back(layer.artifact());
  }
  job.checkpoint(1, 1, "Calibrated");
  return artifacts;
}

}  // namespace qs
