#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "backend/methods/weight_codes.h"
#include "backend/model/linear_codes.h"

namespace qs {

/// A linear layer that computes from its codes.
///
/// Three forms, chosen once by what the codes allow:
/// - Int8: 8-bit weights with one scale a row (or one for all) whose inputs are quantized to at most 8 bits, one range
/// a
///   token: integer products, exact in int32.
/// - Gemv: 2, 3, 4 or 8 bits with f16 scales and groups of a multiple of 8: up to 16 tokens straight from the codes,
/// more
///   tokens by dequantizing blocks of rows. Inputs may be fake-quantized first.
/// - Bits: everything else; codes lie bit by bit (code j at bit bits * j, least significant first) and blocks of rows
/// are
///   dequantized.
///
/// Codes in processing order (GPTQ with act_order) have their inputs gathered once a product. A last group may be
/// shorter; such layers take the form Bits.
///
/// Allocated are the codes, the scales in their stored type, asymmetric zero points of `bits` bits each, and for Int8
/// the sum of every row's codes (32 bits a row), which the formula of the effective bits leaves out.
class PackedLinear final : public LinearOp {
 public:
  enum class Form { Int8, Gemv, Bits };

  PackedLinear(const WeightCodes& codes, const WeightQuantizer& quantizer, const at::Tensor& bias,
               const ActivationQuantization& activations);
  /// Sums in f32 (Int8: in integers); differs from the dequantized product by their order only.
  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor weight() const override;
  std::int64_t bytes() const override;
  std::int64_t in_features() const override { return in_features_; }
  std::int64_t out_features() const override { return out_features_; }
  bool packed() const override { return true; }
  at::Tensor bias() const override { return bias_; }
  Form form() const { return form_; }
  /// What is packed, for checkpoints. Codes of the absmax quantizer, which lie around 2^(bits - 1) - 1, come one higher,
  /// so that symmetric codes have one zero point. @param with_codes  false: a description without `codes`, without work
  LinearCodes linear_codes(bool with_codes) const;
  const ActivationQuantization& activations() const { return activations_; }

 private:
  at::Tensor rows_dequantized(std::int64_t begin, std::int64_t end) const;
  void unpack_rows(std::int64_t begin, std::int64_t end, std::uint8_t* codes) const;
  std::vector<std::uint8_t> zero_points() const;
  at::Tensor scales() const;
  at::Tensor apply_int8(const at::Tensor& x) const;
  at::Tensor apply_gemv(const at::Tensor& x) const;
  at::Tensor apply_blocks(const at::Tensor& x) const;

  Form form_ = Form::Bits;
  int bits_ = 0;
  std::int64_t out_features_ = 0, in_features_ = 0;
  std::int64_t group_size_ = 0;  ///< columns of a row sharing one scale
  bool per_tensor_ = false;      ///< one scale for all rows
  float constant_zero_ = 0.0f;   ///< zero point of all groups when zeros_ is empty
  std::vector<std::uint8_t> codes_;
  std::vector<std::uint8_t> zeros_;  ///< `bits_` bits each
  at::Tensor scale_;                 ///< stored type [rows or 1, groups]
  at::Tensor order_;                 ///< int32 [in_features], when the codes lie in processing order
  std::vector<std::int32_t> code_sums_;
  at::Tensor bias_;
  ActivationQuantization activations_;
};

}  // namespace qs
