#pragma once

#include "backend/method.h"
#include "backend/methods/quantize_decoder.h"

namespace qs {

/// Round to nearest on weights and, with bits_a below 16, on the inputs of the linears and the attention products
/// (weights specification section 2). Data-free.
class RtnWeight final : public WeightMethod {
 public:
  /// @throws Error InvalidArgument for widths of 9 to 15 bits, a group size of 0 or one that contradicts the
  /// granularity
  explicit RtnWeight(const ParamSet& params);
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;

  const WeightQuantizer& quantizer() const { return quantizer_; }
  const ActivationQuantization& activations() const { return activations_; }

 private:
  WeightQuantizer quantizer_;
  ActivationQuantization activations_;
  ActivationScope scope_ = ActivationScope::All;
  AttentionQuantization attention_;
};

/// @throws Error InvalidArgument unless `bits` is 2 to 8 or 16
void check_width(const std::string& method, const std::string& key, int bits);

/// A weight left in full precision: no element has a code.
QuantizedTensor unquantized(const at::Tensor& weight);

}  // namespace qs
