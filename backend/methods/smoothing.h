#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
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
  bool routed = false;  ///< the linears are those of every expert; the router reads the norm too
};
/// The pairs of an architecture (weights specification 4.3), the same in every layer.
/// @throws Error Unsupported for post-norm models, whose norms also feed the residual stream
std::vector<SmoothingPair> smoothing_pairs(const ArchitectureSpec& spec);
std::string pair_name(const SmoothingPair& pair, std::int64_t layer);  ///< "layers.2.input_layernorm"
/// Whose activation maxima stand for the pair's input: the first linear's name, or the router's.
std::string pair_input(const SmoothingPair& pair, std::int64_t layer);

/// A linear that reads a pair's norm.
struct PairReader {
  std::string name;
  std::shared_ptr<const LinearOp>* op = nullptr;
  bool quantized = true;  ///< false for a router, which stays in floating point
};
std::vector<PairReader> pair_readers(DecoderBlock& block, std::int64_t layer, const SmoothingPair& pair);

/// A pair of one layer before it is smoothed.
struct PairView {
  std::int64_t layer = 0;
  const SmoothingPair* pair = nullptr;
  std::vector<PairReader> readers;
  std::vector<at::Tensor> weights;  ///< of the readers, f32 [out_features, channels]
  at::Tensor absmax;                ///< f32 [channels] of their input
};
/// @throws Error Unsupported when a weight is quantized already; InvalidArgument as calibrated_absmax
PairView pair_view(DecoderBlock& block, std::int64_t layer, const SmoothingPair& pair, const Calibration& calibration);

struct SmoothingOptions {
  double alpha = 0.5;
  bool extended = false;  ///< also up -> down and v -> o, exact for a gated or ReLU MLP and for grouped heads
  bool compat_reference = false;
  std::vector<LayerRange> layers = {};                       ///< empty: all
  std::function<double(const PairView&)> choose_alpha = {};  ///< of a norm's pair, instead of `alpha`
};

/// The maxima of the input of a linear or router, by its name. @throws Error InvalidArgument when the calibration lacks
/// it or has another width
at::Tensor calibrated_absmax(const Calibration& calibration, const std::string& name, std::int64_t in_features);

/// S1 to S3 on the blocks that the options name, from the weights as given: logits stay equal to f32 rounding.
/// An expert that no calibration token reached keeps its down_proj.
/// @param activation_absmax  when given, receives the largest smoothed input of each kind of linear, over all experts,
///        at layer * 7 + kind; 0 in blocks that are not smoothed
/// @throws Error Unsupported where a fold would not be exact
DecoderWeights smooth_decoder(const ArchitectureSpec& spec, DecoderWeights weights, const Calibration& calibration,
                              const SmoothingOptions& options, std::vector<double>* activation_absmax,
                              const JobContext& job);

}  // namespace qs
