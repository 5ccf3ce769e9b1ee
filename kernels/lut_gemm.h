#pragma once

#include <cstdint>

#include "kernels/gemv.h"

namespace qs::kernels {

/// LUT-GEMM (arXiv:2206.09557): y = x W^T from the bit planes of binary-coding quantization,
/// w = sum over planes i of alpha_i * (+1 or -1) + offset, one alpha a plane (and one offset) for each group of a row.
///
/// For every run of inputs all signed sums of the run are looked up instead of computed; the sum of a run whose signs
/// are all +1 serves the offset.
struct BitPlaneWeight {
  int bits = 0;  ///< planes, 1 to 8
  std::int64_t out_features = 0, in_features = 0;
  std::int64_t group_size = 0;  ///< along in_features: a multiple of 8 that divides it, or in_features: one a row
  /// [plane_words(in_features)][bits][out_features]: bit t of word (w, i, o) is 1 when plane i has +1 in column
  /// 32 * w + t of row o. Bits behind the last column may hold anything.
  const std::uint32_t* planes = nullptr;
  DenseType scale_type = DenseType::F16;  ///< of alpha and offset
  const void* alpha = nullptr;            ///< [in_features / group_size][bits][out_features]
  const void* offset = nullptr;           ///< [in_features / group_size][out_features]; null: 0
};

/// Words of a plane of one row.
inline constexpr std::int64_t plane_words(std::int64_t in_features) { return (in_features + 31) / 32; }

/// F32 looks up f32 sums and differs from the dense product by the order of its sums only. Int16 and Int8 look up sums
/// of four inputs rounded to 16 or 8 bits, one scale for each kLutStrip columns of a group, and add them exactly: about
/// 3e-5 and 1e-2 of error in y. A set whose f32 form is the faster one takes it for Int16.
enum class LutArithmetic { F32, Int16, Int8 };
inline constexpr std::int64_t kLutStrip = 128;

using LutGemm = void (*)(const BitPlaneWeight& weight, const GemvArgs& args, LutArithmetic arithmetic) noexcept;
/// args.row_begin may be any row; every call builds its own tables, which pays from about 64 rows on.
void lut_gemm_scalar(const BitPlaneWeight& weight, const GemvArgs& args, LutArithmetic arithmetic) noexcept;

/// The 256 signed sums of a run of eight inputs by doubling: table[p] = sum over k of (bit k of p ? x[k] : -x[k]).
void lut_table(const float* x, float* table) noexcept;

}  // namespace qs::kernels
