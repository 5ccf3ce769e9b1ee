#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "backend/method.h"

namespace qs {

/// Scales of one smoothed pair (weights specification 4.2), all f32 [channels].
struct SmoothingScales {
  at::Tensor weight_absmax;  ///< S1, with its floor of 1e-5
  at::Tensor scale;          ///< S2
};

/// S1 and S2. A channel whose activations are all 0 gets scale 1, or the published floor of 1e-5 with
/// `compat_reference`.
/// @param activation_absmax  [channels]
/// @param weights            weights [out_features, channels] that share this input
SmoothingScales smoothing_scales(const at::Tensor& activation_absmax, const std::vector<at::Tensor>& weights,
                                 double alpha, bool compat_reference);

/// A norm and the linears that it alone feeds: what S3 may be folded into.
struct SmoothingPair {
  const char* norm;  ///< "input_layernorm"
  std::vector<LinearKind> linears;
};
const std::vector<SmoothingPair>& smoothing_pairs();
std::string pair_name(std::int64_t layer, std::size_t pair);  ///< "layers.2.input_layernorm"

struct SmoothingOptions {
  double alpha = 0.5;
  bool extended = false;  ///< also up -> down and v -> o, exact for a gated MLP and for grouped heads
  bool compat_reference = false;
};

/// The maxima of one linear's input. @throws Error InvalidArgument when the calibration lacks it or has another width
at::Tensor calibrated_absmax(const Calibration& calibration, std::int64_t layer, LinearKind kind,
                             std::int64_t in_features);

/// S1 to S3 on every block, from the weights as given: logits stay equal to f32 rounding.
/// @param activation_absmax  when given, receives the largest smoothed input of each linear, layer * 7 + kind
DecoderWeights smooth_decoder(const ArchitectureSpec& spec, DecoderWeights weights, const Calibration& calibration,
                              const SmoothingOptions& options, std::vector<double>* activation_absmax,
                              const JobContext& job);

}  // namespace qs
