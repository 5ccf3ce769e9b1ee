#include "backend/methods/pair_error.h"

#include <ATen/ATen.h>

#include "backend/types/error.h"

namespace qs {

PairError::PairError(PairView view, at::Tensor rows) : view_(std::move(view)), rows_(std::move(rows)) {
  for (std::size_t i = 0; i < view_.readers.size(); ++i) {
    if (view_.readers[i].quantized) outputs_.push_back(at::matmul(rows_, view_.weights[i].t()));
  }
}

double PairError::mse(double alpha, const PairQuantizers& quantizers) const {
  const at::Tensor scale = smoothing_scales(view_.absmax, view_.weights, alpha, quantizers.compat_reference).scale;
  ActivationQuantization input = quantizers.activations;
  if (quantizers.static_ranges) input.static_absmax = std::max((view_.absmax / scale).max().item<double>(), 1e-5);
  const at::Tensor seen = fake_quantize(rows_ / scale, input);
  double squares = 0.0, elements = 0.0;
  std::size_t output = 0;
  for (std::size_t i = 0; i < view_.readers.size(); ++i) {
    if (!view_.readers[i].quantized) continue;
    const at::Tensor smoothed = view_.weights[i] * scale;
    const at::Tensor kept = quantizers.weights.off()
                                ? smoothed
                                : quantize_weight_codes(smoothed, quantizers.weights, view_.readers[i].name).values;
    const at::Tensor difference = at::matmul(seen, kept.t()).sub_(outputs_[output++]);
    squares += difference.square().sum().item<double>();
    elements += static_cast<double>(difference.numel());
  }
  return squares / elements;
}

const at::Tensor& calibrated_rows(const Calibration& calibration, const SmoothingPair& pair, std::int64_t layer) {
  const std::string name = pair_input(pair, layer);
  const auto found = calibration.input_rows.find(name);
  if (found != calibration.input_rows.end()) return found->second;
  throw Error(ErrorCode::InvalidArgument,
              "The calibration '" + calibration.source + "' holds no sample of the inputs of '" + name +
                  "', on which layer outputs are compared; a capture keeps maxima only. Calibrate on a text.");
}

}  // namespace qs
