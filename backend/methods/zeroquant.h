#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "backend/methods/affine_weight.h"
#include "backend/model/decoder.h"

namespace qs {

/// The quantizers of ZeroQuant (arXiv:2206.01861; weights specification 9.1 and 9.2).
///
/// Symmetric (Z1): s = 2 max|v| / 2^bits, q = clamp(rne(v / s), -2^(bits-1), 2^(bits-1) - 1). The largest positive
/// value is clipped by one step. The paper divides by 2^(bits-1) - 1 instead; the code's rule is the default.
/// Asymmetric: s = (max - min) / 2^bits, o = rne(min / s) s, q = clamp(rne((v - o) / s), 0, 2^bits - 1). The range need
/// not contain 0.
/// Ternary: t = 0.7 mean|v|; -a, 0 or a, where a is the mean of the |v| above t.
/// Binary: -mean|v| or mean|v|; a 0 counts as positive.
enum class RunGrid { Symmetric, Asymmetric, Ternary, Binary };
enum class ZeroQuantScale {
  Code,  ///< range / 2^bits, as the published code
  Paper  ///< max|v| / (2^(bits-1) - 1), asymmetric range / (2^bits - 1): no value is clipped
};
ZeroQuantScale parse_zeroquant_scale(const std::string& id);  ///< "code", "paper"

struct RunQuantizer {
  int bits = 8;  ///< width of a code; 2 for Ternary, 1 for Binary
  RunGrid grid = RunGrid::Symmetric;
  ZeroQuantScale rule = ZeroQuantScale::Code;
  ScaleType scale_type = ScaleType::F16;
};

/// value = scale * (code - zero_point), one scale and zero point a run.
struct RunCodes {
  at::Tensor codes;       ///< uint8 [runs, length]
  at::Tensor scale;       ///< f32 [runs, 1], as stored
  at::Tensor zero_point;  ///< f32 [runs, 1]: 2^(bits-1) Symmetric, 1 Ternary, 0.5 Binary, any 16-bit integer Asymmetric
  at::Tensor values;      ///< f32 [runs, length]
};

/// Codes come from the unrounded scale, values from the stored one. A run of zeros reconstructs to zeros, an asymmetric
/// run of equal values to that value (0 / 0 in the reference).
/// @param runs  [runs, length], finite; computed in f32
RunCodes quantize_runs(const at::Tensor& runs, const RunQuantizer& quantizer);

/// What shares a scale in a weight [out_features, in_features].
struct RunLayout {
  enum class Kind {
    PerRow,
    GroupSize,  ///< `size` inputs of a row
    NumGroups   ///< `size` equal contiguous runs of the row-major weight, which may straddle rows
  };
  Kind kind = Kind::PerRow;
  std::int64_t size = 0;

  /// Weights of a run. @throws Error InvalidArgument naming the nearest size that divides
  std::int64_t length(std::int64_t out_features, std::int64_t in_features, const std::string& name) const;
};

/// One weight matrix under ZeroQuant.
struct ZeroQuantWeight {
  int bits = 8;  ///< 1 Binary, 2 Ternary, 3 to 8; 16: off
  bool symmetric = true;
  ZeroQuantScale rule = ZeroQuantScale::Code;
  ScaleType scale_type = ScaleType::F16;
  RunLayout layout;

  bool off() const { return bits >= 16; }
  RunQuantizer quantizer() const;
  /// bits + scale / run, asymmetric also 16 / run for the zero point; 16 when off.
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const;
};

struct ZeroQuantCodes {
  at::Tensor codes;              ///< uint8 [out_features, in_features]
  at::Tensor scale, zero_point;  ///< f32 [runs], as in RunCodes
  at::Tensor values;             ///< f32 [out_features, in_features]
  std::int64_t run_length = 0;
};
/// @param name  for messages
/// @throws Error InvalidArgument naming row and column of a NaN or infinity, or a layout that does not divide
ZeroQuantCodes quantize_zeroquant(const at::Tensor& weight, const ZeroQuantWeight& quantizer, const std::string& name);

/// Dynamic quantization of activations, one range a token (9.2).
struct TokenQuantization {
  int bits = 16;  ///< 16: off
  bool symmetric = true;
  ZeroQuantScale rule = ZeroQuantScale::Code;
  bool off() const { return bits >= 16; }
};
/// @param x  [..., features]; computed in f32, returned in the type of x
at::Tensor quantize_tokens(const at::Tensor& x, const TokenQuantization& quantization);
/// The symmetric scale of each row of f32 `rows`, [rows, 1].
at::Tensor token_scale(const at::Tensor& rows, const TokenQuantization& quantization);

/// Static quantization: one fixed range for all tokens. Values outside of it are clipped.
struct ActivationRange {
  double min = 0.0, max = 0.0;
};
at::Tensor quantize_in_range(const at::Tensor& x, const ActivationRange& range, const TokenQuantization& quantization);

/// Follows the range of an activation over batches: the first batch sets it, then range = m * range + (1 - m) * batch.
class RangeTracker {
 public:
  explicit RangeTracker(double momentum = 0.95) : momentum_(momentum) {}
  void see(const at::Tensor& x);
  const ActivationRange& range() const { return range_; }

 private:
  double momentum_;
  bool empty_ = true;
  ActivationRange range_;
};

/// A linear layer whose input is quantized token by token first.
class TokenQuantizedLinear final : public LinearOp {
 public:
  TokenQuantizedLinear(std::shared_ptr<const LinearOp> inner, TokenQuantization quantization);
  at::Tensor apply(const at::Tensor& x) const override { return inner_->apply(quantize_tokens(x, quantization_)); }
  at::Tensor weight() const override { return inner_->weight(); }
  at::Tensor bias() const override { return inner_->bias(); }
  std::int64_t bytes() const override { return inner_->bytes(); }
  std::int64_t in_features() const override { return inner_->in_features(); }
  std::int64_t out_features() const override { return inner_->out_features(); }
  bool packed() const override { return inner_->packed(); }
  at::Tensor seen_input(const at::Tensor& x) const { return quantize_tokens(x, quantization_); }

 private:
  std::shared_ptr<const LinearOp> inner_;
  TokenQuantization quantization_;
};

}  // namespace qs
