#include "backend/evaluation/layer_error.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "backend/methods/smoothquant.h"
#include "backend/methods/weight_codes.h"
#include "backend/model/decoder.h"

namespace qs {
namespace {

constexpr std::int64_t kTokens = 512;

class PairInputSink final : public TapSink {
 public:
  PairInputSink(std::vector<SmoothingPair> pairs, std::vector<at::Tensor>& inputs)
      : pairs_(std::move(pairs)), inputs_(&inputs) {}
  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    for (std::size_t pair = 0; pair < pairs_.size(); ++pair)
      if (!pairs_[pair].routed && kind == pairs_[pair].linears.front()) keep(layer, pair, x);
  }
  void on_router_input(std::int64_t layer, const at::Tensor& x) override {
    for (std::size_t pair = 0; pair < pairs_.size(); ++pair)
      if (pairs_[pair].routed) keep(layer, pair, x);
  }

 private:
  void keep(std::int64_t layer, std::size_t pair, const at::Tensor& x) {
    (*inputs_)[static_cast<std::size_t>(layer) * pairs_.size() + pair] = x.to(at::kFloat).clone();
  }

  std::vector<SmoothingPair> pairs_;
  std::vector<at::Tensor>* inputs_;
};

}  // namespace

std::vector<at::Tensor> pair_inputs(const Model& model, const std::vector<std::int64_t>& ids, const JobContext& job) {
  const c10::NoGradGuard no_grad;
  const auto tokens = std::min({static_cast<std::int64_t>(ids.size()), kTokens, model.info().max_context});
  const std::vector<std::int64_t> part(ids.begin(), ids.begin() + tokens);
  const std::vector<SmoothingPair> pairs = smoothing_pairs(model.spec());
  std::vector<at::Tensor> inputs(model.weights().blocks.size() * pairs.size());
  PairInputSink sink(pairs, inputs);
  FullPrecisionWindow attention;
  forward(model.spec(), model.weights(), RaggedBatch::single(part), attention, LogitRows::None, &sink, job);
  return inputs;
}

std::vector<double> pair_output_errors(const Model& model, const Calibration& calibration, const Setup& smoothquant,
                                       const std::vector<at::Tensor>& inputs, const JobContext& job) {
  const c10::NoGradGuard no_grad;
  const SmoothQuant method(smoothquant.params);
  const auto layers = static_cast<std::int64_t>(model.weights().blocks.size());
  const std::vector<SmoothingPair> pairs = smoothing_pairs(model.spec());
  std::vector<double> errors;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    job.checkpoint(layer, layers, "Comparing layer outputs");
    DecoderBlock block = model.weights().blocks[static_cast<std::size_t>(layer)];
    for (std::size_t pair = 0; pair < pairs.size(); ++pair) {
      const at::Tensor& x = inputs[static_cast<std::size_t>(layer) * pairs.size() + pair];
      const std::vector<PairReader> readers = pair_readers(block, layer, pairs[pair]);
      std::vector<at::Tensor> weights;
      for (const PairReader& reader : readers) weights.push_back((*reader.op)->weight());
      const at::Tensor absmax = calibrated_absmax(calibration, pair_input(pairs[pair], layer), x.size(1));
      const at::Tensor scale =
          smoothing_scales(absmax, weights, method.smoothing().alpha, method.smoothing().compat_reference).scale;
      ActivationQuantization activations = method.activations();
      const at::Tensor seen = fake_quantize(x / scale, activations);
      double squares = 0.0, elements = 0.0;
      for (std::size_t i = 0; i < weights.size(); ++i) {
        if (!readers[i].quantized) continue;
        const at::Tensor smoothed = weights[i] * scale;
        const at::Tensor kept = method.quantizer().off()
                                    ? smoothed
                                    : quantize_weight_codes(smoothed, method.quantizer(), readers[i].name).values;
        const at::Tensor difference = at::matmul(seen, kept.t()) - at::matmul(x, weights[i].t());
        squares += difference.square().sum().item<double>();
        elements += static_cast<double>(difference.numel());
      }
      errors.push_back(squares / elements);
    }
  }
  job.checkpoint(layers, layers, "Comparing layer outputs");
  return errors;
}

}  // namespace qs
