#pragma once

#include <cstdint>

#include "kernels/gemv.h"

namespace qs::kernels {

/// y = x Wᵀ from a weight as SpQR keeps it (arXiv:2306.03078): small groups whose scales and zeros are codes too, and
/// outliers that replace the dense value.
///
///     w[o][i] = s (c[o][i] - z) of group i / group_size, or the outlier's value
///     s = f16(S.scale (S.code - S.zero)),  z = Z.scale (Z.code - Z.zero), both in f32 before the rounding of s

/// Scales or zeros of the groups.
struct SpqrStatistic {
  int bits = 0;                                           ///< of a code; 0: no second level
  const std::uint8_t* codes = nullptr;                    ///< bit stream (pack_bits.h) [groups][out_features]
  const std::uint16_t *scale = nullptr, *zero = nullptr;  ///< f16 [groups][out_features / run]
  const std::uint16_t* plain = nullptr;                   ///< without a second level: f16 [groups][out_features]
  float constant = 0.0F;                                  ///< without both
};
struct SpqrWeight {
  int bits = 0;  ///< 2, 3, 4 or 8
  std::int64_t out_features = 0;
  std::int64_t in_features = 0;  ///< a multiple of 8, at most 65536
  std::int64_t group_size = 0;   ///< divides in_features and is a multiple of 8
  std::int64_t run = 1;          ///< rows that share a second level; divides out_features
  const std::uint8_t* codes =
      nullptr;  ///< pack_weight layout; at an outlier the code of 0, clamp(rne(z), 0, 2^bits - 1)
  SpqrStatistic scales, zeros;
  const std::int32_t* outlier_rows = nullptr;      ///< [out_features + 1]
  const std::uint16_t* outlier_columns = nullptr;  ///< ascending in a row
  const std::uint16_t* outlier_values = nullptr;   ///< f16
};
/// @param group_sums  [tokens][groups], sums of x over the groups
/// Rows as in GemvArgs. The dense product takes the outliers' codes along; what they lack is added row by row.
using SpqrGemv = void (*)(const SpqrWeight& weight, const GemvArgs& args, const float* group_sums) noexcept;
void spqr_gemv_scalar(const SpqrWeight& weight, const GemvArgs& args, const float* group_sums) noexcept;

}  // namespace qs::kernels
