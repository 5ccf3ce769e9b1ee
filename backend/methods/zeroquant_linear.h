#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/methods/zeroquant.h"
#include "backend/types/weight_run.h"

namespace qs {

/// A linear layer that computes from ZeroQuant codes in the two forms that PackedLinear has not.
///
/// - Int8: symmetric 8-bit weights with one scale a row and symmetric inputs of at most 8 bits, one range a token:
///   integer products, exact in int32. Codes lie as int8 [out_features, in_features].
/// - Runs: any width, any run length; runs may straddle rows. Codes of the row-major weight lie bit by bit (code j at
///   bit bits * j, least significant first), and blocks of rows are dequantized.
///
/// Allocated are the codes, one scale a run in its stored type, asymmetric zero points of 16 bits, and for Int8 the sum
/// of every row's codes (32 bits a row), which the formula of the effective bits leaves out.
class ZeroQuantLinear final : public LinearOp {
 public:
  enum class Form { Int8, Runs };

  ZeroQuantLinear(const ZeroQuantCodes& codes, const ZeroQuantWeight& quantizer, const at::Tensor& bias,
                  const TokenQuantization& tokens);
  /// Sums in f32 (Int8: in integers); differs from the dequantized product by their order only.
  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor weight() const override;
  at::Tensor bias() const override { return bias_; }
  std::int64_t bytes() const override;
  std::int64_t in_features() const override { return in_features_; }
  std::int64_t out_features() const override { return out_features_; }
  bool packed() const override { return true; }
  Form form() const { return form_; }
  at::Tensor seen_input(const at::Tensor& x) const { return quantize_tokens(x, tokens_); }

 private:
  at::Tensor rows_dequantized(std::int64_t begin, std::int64_t end) const;
  at::Tensor apply_int8(const at::Tensor& x) const;
  at::Tensor apply_blocks(const at::Tensor& x) const;

  Form form_ = Form::Runs;
  int bits_ = 0;
  std::int64_t out_features_ = 0, in_features_ = 0, run_length_ = 0;
  float constant_zero_ = 0.0f;             ///< zero point of all runs when zeros_ is empty
  std::vector<std::uint8_t> codes_;        ///< Runs
  std::vector<std::int8_t> signed_codes_;  ///< Int8
  std::vector<std::int16_t> zeros_;
  std::vector<std::int32_t> code_sums_;
  at::Tensor scale_;  ///< stored type [runs]
  at::Tensor bias_;
  TokenQuantization tokens_;
};

/// The linear layer of these codes: dequantized (Simulated) or computing from the packed codes, as a PackedLinear where
/// its kernels fit (symmetric, 2, 3, 4 or 8 bits, f16 scales, runs of a multiple of 8 that end with the row) and else
/// as a ZeroQuantLinear. @param bias  may be undefined
std::shared_ptr<const LinearOp> make_zeroquant_linear(const ZeroQuantCodes& codes, const ZeroQuantWeight& quantizer,
                                                      const at::Tensor& bias, const TokenQuantization& tokens,
                                                      WeightExecution execution, at::ScalarType compute_type);

}  // namespace qs
