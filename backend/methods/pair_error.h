#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "backend/methods/activation_quantization.h"
#include "backend/methods/smoothing.h"
#include "backend/methods/weight_codes.h"

namespace qs {

/// How a smoothed pair is quantized.
struct PairQuantizers {
  WeightQuantizer weights;
  ActivationQuantization activations;
  bool static_ranges = false;  ///< level O3: the range of the input comes from the calibrated maxima
  bool compat_reference = false;
};

/// What smoothing and quantizing one pair does to the outputs of its linears, from a sample of its inputs (weights
/// specification 4.5, layer mode). The outputs in full precision are computed once.
class PairError {
 public:
  /// @param rows  inputs of the pair, f32 [rows, channels]
  PairError(PairView view, at::Tensor rows);
  /// Mean squared error over rows and output features of all quantized linears of the pair.
  double mse(double alpha, const PairQuantizers& quantizers) const;

 private:
  PairView view_;
  at::Tensor rows_;
  std::vector<at::Tensor> outputs_;  ///< of the quantized readers, [rows, out_features]
};

/// The calibration's sample of a pair's inputs.
/// @throws Error InvalidArgument saying how to get one when there is none
const at::Tensor& calibrated_rows(const Calibration& calibration, const SmoothingPair& pair, std::int64_t layer);

}  // namespace qs
