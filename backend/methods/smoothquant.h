#pragma once

#include "backend/method.h"
#include "backend/methods/quantize_decoder.h"
#include "backend/methods/smoothing.h"

namespace qs {

/// SmoothQuant (arXiv:2211.10438; weights specification section 4): migrates the difficulty of activation outliers into
/// the weights by an exact rescaling, then quantizes both.
class SmoothQuant final : public WeightMethod {
 public:
  /// @throws Error InvalidArgument for widths of 9 to 15 bits, or static ranges (O3) with the affine quantizer
  explicit SmoothQuant(const ParamSet& params);
  /// @throws Error InvalidArgument when the context has no calibration or one that does not fit the model
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// The weight quantizer alone, without smoothing, which needs the model.
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;

  const SmoothingOptions& smoothing() const { return smoothing_; }
  const WeightQuantizer& quantizer() const { return quantizer_; }
  const ActivationQuantization& activations() const { return activations_; }

 private:
  SmoothingOptions smoothing_;
  WeightQuantizer quantizer_;
  ActivationQuantization activations_;
  ActivationScope scope_ = ActivationScope::All;
  AttentionQuantization attention_;
  bool static_ranges_ = false;
};

}  // namespace qs
