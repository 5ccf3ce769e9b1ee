#pragma once

#include <cstdint>

namespace qs::kernels {

/// y = x W^T for few tokens, W [out_features, in_features] kept in codes or in 16-bit floats.

/// A low-bit weight, w = scale * (code - zero_point).
struct PackedWeight {
  int bits = 0;  ///< 2, 3, 4 or 8
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;  ///< a multiple of 8
  std::int64_t group_size = 0;   ///< along in_features, divides it and is a multiple of 8; in_features: one a row
  const std::uint8_t* codes = nullptr;       ///< pack_weight layout (pack_bits.h)
  const std::uint16_t* scale = nullptr;      ///< f16 [out_features][in_features / group_size]
  const std::uint8_t* zero_point = nullptr;  ///< [out_features][in_features / group_size], in code units
};
struct GemvArgs {
  const float* x = nullptr;  ///< [tokens][in_features]
  std::int64_t tokens = 0;   ///< any; eight at a time share one pass over the codes
  float* y = nullptr;        ///< [tokens][out_features]
  std::int64_t row_begin = 0,
               row_end = 0;  ///< output features to compute, so threads can share; row_begin a multiple of 16
};
using PackedGemv = void (*)(const PackedWeight& weight, const GemvArgs& args) noexcept;
void packed_gemv_scalar(const PackedWeight& weight, const GemvArgs& args) noexcept;

enum class DenseType { F32, F16, BF16 };
/// @param weight  [out_features][in_features] in `type`
using DenseGemv = void (*)(DenseType type, const void* weight, std::int64_t in_features, std::int64_t out_features,
                           const GemvArgs& args) noexcept;
void dense_gemv_scalar(DenseType type, const void* weight, std::int64_t in_features, std::int64_t out_features,
                       const GemvArgs& args) noexcept;

/// Activations quantized on the fly, one range a token: x ~ scale * (code - zero_point).
struct QuantizedActivations {
  std::uint8_t* codes = nullptr;       ///< [tokens][in_features]
  float* scale = nullptr;              ///< [tokens]
  std::int32_t* zero_point = nullptr;  ///< [tokens]
  std::int32_t* code_sum = nullptr;    ///< [tokens], of a token's codes
};
/// Affine is "minmax with zero" (weights specification R1, R3 to R5): the range contains 0, an all-zero token has range
/// [-1, 1]. Absmax is scale = max(max|x|, 1e-5) / (2^(bits-1) - 1), stored with zero point 2^(bits-1) - 1 (127 for 8
/// bits).
enum class ActivationRange { Affine, Absmax };
/// @param x  [tokens][in_features]; bits 2..8
using QuantizeActivations = void (*)(const float* x, std::int64_t tokens, std::int64_t in_features, int bits,
                                     ActivationRange range, const QuantizedActivations& out) noexcept;
void quantize_activations_scalar(const float* x, std::int64_t tokens, std::int64_t in_features, int bits,
                                 ActivationRange range, const QuantizedActivations& out) noexcept;

/// An 8-bit weight, w = scale * (code - zero_point) with signed codes; unsigned codes are stored minus 128 and so are
/// their zero points.
struct Int8Weight {
  std::int64_t out_features = 0, in_features = 0;
  const std::int8_t* codes = nullptr;        ///< [out_features][in_features]
  const float* scale = nullptr;              ///< [out_features]
  const std::int32_t* zero_point = nullptr;  ///< [out_features]; null: all 0
  const std::int32_t* code_sum = nullptr;    ///< [out_features], of a row's codes (sum_rows)
};
/// y[t][o] = scale_t * scale_o * sum over i of (a_ti - z_t) * (w_oi - z_o), the products summed exactly in int32:
/// in_features <= 32768. @param y  [tokens][out_features]; rows [row_begin, row_end) of W are computed
using Int8Gemm = void (*)(const Int8Weight& weight, const QuantizedActivations& x, std::int64_t tokens,
                          std::int64_t row_begin, std::int64_t row_end, float* y) noexcept;
void int8_gemm_scalar(const Int8Weight& weight, const QuantizedActivations& x, std::int64_t tokens,
                      std::int64_t row_begin, std::int64_t row_end, float* y) noexcept;
/// code_sum[o] = sum of row o.
void sum_rows(const std::int8_t* codes, std::int64_t out_features, std::int64_t in_features,
              std::int32_t* code_sum) noexcept;

}  // namespace qs::kernels
