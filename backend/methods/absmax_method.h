#pragma once

#include "backend/method.h"
#include "backend/methods/weight_codes.h"

namespace qs {

/// Absmax quantization at run time of what goes into or comes out of a linear layer (A1 of weights specification
/// section 3).
struct AbsmaxActivation {
  int bits = 16;            ///< 16: off
  bool per_tensor = false;  ///< one range over all tokens of a call instead of one a token
  bool native = false;      ///< every elementary step in the type of the activations, as the published code
  bool off() const { return bits >= 16; }
  at::Tensor apply(const at::Tensor& x) const;  ///< @param x  [tokens, features]
};

/// A linear layer with a quantized input or output.
class AbsmaxActivationLinear final : public LinearOp {
 public:
  AbsmaxActivationLinear(std::shared_ptr<const LinearOp> inner, AbsmaxActivation input, AbsmaxActivation output);
  at::Tensor apply(const at::Tensor& x) const override { return output_.apply(inner_->apply(input_.apply(x))); }
  at::Tensor weight() const override { return inner_->weight(); }
  at::Tensor bias() const override { return inner_->bias(); }
  std::int64_t bytes() const override { return inner_->bytes(); }
  std::int64_t in_features() const override { return inner_->in_features(); }
  std::int64_t out_features() const override { return inner_->out_features(); }
  bool packed() const override { return inner_->packed(); }
  const LinearOp& inner() const { return *inner_; }
  const AbsmaxActivation& input() const { return input_; }

 private:
  std::shared_ptr<const LinearOp> inner_;
  AbsmaxActivation input_, output_;
};

/// Absmax weights and activations (weights specification section 3), two settings:
/// - scope=all, mit-han-lab/smoothquant: weights and inputs of all linears of the blocks; with quantize_bmm_input also
///   the outputs of q, k and v.
/// - scope=kv, the W_A_ rows of DecoQuant's OPT table: weights of k_proj and v_proj, and their *outputs* per token over
///   the full width; nothing else. Its `smoothquant` row is this behind smoothquant with both widths at 16, since
///   smoothing is exact where nothing is quantized.
class AbsmaxMethod final : public WeightMethod {
 public:
  /// @throws Error InvalidArgument for widths of 9 to 15 bits, or quantize_bmm_input with scope=kv
  explicit AbsmaxMethod(const ParamSet& params);
  /// @throws Error Unsupported for packed execution with compute=native, whose values are on no grid
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// With scope=kv, weights whose name has neither k_proj nor v_proj stay as they are.
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  /// Of a linear that is quantized.
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;

 private:
  bool quantizes(LinearKind kind) const { return !keys_and_values_ || kind == LinearKind::K || kind == LinearKind::V; }
  std::shared_ptr<const LinearOp> quantize(const LinearSlot& slot, WeightExecution execution,
                                           at::ScalarType compute_type) const;

  WeightQuantizer quantizer_;
  AbsmaxActivation activation_;
  bool keys_and_values_ = false;
  bool outputs_of_qkv_ = false;
  bool native_ = false;
};

}  // namespace qs
