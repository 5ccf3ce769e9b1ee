#include "backend/methods/kvquant_fit.h"
#include "backend/model/decoder.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

class CollectKeys final : public TapSink {
 public:
  explicit CollectKeys(std::vector<LayerCalibration>& layers) : layers_(layers) {}
  void on_attention(const AttentionCall& call) override {
    layers_[static_cast<std::size_t>(call.layer)].add_keys(call.key_pre_rope);
  }

 private:
  std::vector<LayerCalibration>& layers_;
};

class FitLevels final : public TapSink {
 public:
  explicit FitLevels(std::vector<LayerCalibration>& layers) : layers_(layers) {}
  void on_attention(const AttentionCall& call) override {
    layers_[static_cast<std::size_t>(call.layer)].fit(call.key_pre_rope, call.value, {}, {});
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
  const auto run = [&](TapSink& taps, double from, double to) {
    const double step = (to - from) / static_cast<double>(input.windows.size());
    for (const std::vector<std::int64_t>& window : input.windows) {
      FullPrecisionWindow attention;
      forward(spec, input.model.weights(), RaggedBatch::single(window), attention, LogitRows::None, &taps,
              job.part(from, from + step));
      from += step;
    }
  };
  CollectKeys keys(layers);
  run(keys, 0.0, 0.5);
  for (LayerCalibration& layer : layers) layer.fix_thresholds();
  FitLevels fit(layers);
  run(fit, 0.5, 1.0);
  std::vector<KvLayerArtifact> artifacts;
  for (const LayerCalibration& layer : layers) {
    job.checkpoint(static_cast<std::int64_t>(artifacts.size()), spec.layers, "Fitting levels");
    artifacts.push_back(layer.artifact());
  }
  return artifacts;
}

}  // namespace qs
