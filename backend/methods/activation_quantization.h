#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "backend/model/decoder.h"

namespace qs {

enum class QuantizerKind { Affine, Absmax };
QuantizerKind parse_quantizer(const std::string& id);  ///< "affine", "absmax"

/// Fake quantization of the input of a linear layer at every forward pass (weights specification sections 2 and 3).
struct ActivationQuantization {
  int bits = 16;  ///< 16: off
  bool symmetric = false;
  std::int64_t group_size = -1;  ///< channels of a token sharing one range; -1: the whole token
  QuantizerKind quantizer = QuantizerKind::Affine;
  bool per_tensor = false;     ///< one range over all tokens of a call instead of one a token
  double static_absmax = 0.0;  ///< above 0: the absmax scale comes from this maximum and is clamped to it (level O3)
  bool compat_reference = false;
  bool off() const { return bits >= 16; }
};

/// @param x  [..., in_features]; computed in f32 and returned in the type of x
/// @throws Error InvalidArgument when group_size does not divide in_features
at::Tensor fake_quantize(const at::Tensor& x, const ActivationQuantization& quantization);

/// A linear layer whose input is fake-quantized first. Its weight may be in floating point still: what stands behind
/// smoothing in a chain quantizes it.
class QuantizedInputLinear final : public LinearOp {
 public:
  QuantizedInputLinear(std::shared_ptr<const LinearOp> inner, ActivationQuantization quantization);
  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor weight() const override { return inner_->weight(); }
  std::int64_t bytes() const override { return inner_->bytes(); }
  std::int64_t in_features() const override { return inner_->in_features(); }
  std::int64_t out_features() const override { return inner_->out_features(); }
  bool packed() const override { return inner_->packed(); }
  at::Tensor bias() const override { return inner_->bias(); }
  bool floating_point() const override { return inner_->floating_point(); }
  at::Tensor rows(const at::Tensor& ids) const override { return inner_->rows(ids); }
  const ActivationQuantization& quantization() const { return quantization_; }

 private:
  std::shared_ptr<const LinearOp> inner_;
  ActivationQuantization quantization_;
};

/// How a linear quantizes its input at every product; off when it does not.
ActivationQuantization input_quantization(const LinearOp& linear);
/// `made`, which replaces `before`: quantizes its input as `before` did, unless it does so in its own way.
std::shared_ptr<const LinearOp> keep_input_quantization(const LinearOp& before, std::shared_ptr<const LinearOp> made);

}  // namespace qs
