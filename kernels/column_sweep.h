#pragma once

#include <cstdint>

namespace qs::kernels {

/// The column sweep of GPTQ (arXiv:2210.17323, algorithm 1) and SpQR (arXiv:2306.03078, algorithm 1).
///
/// With H = V Vᵀ, V upper triangular, the columns i before j, fixed with the differences d_i = w_i - ŵ_i, leave column
/// j expecting
///   x_j = w_j + T_j / V_jj,   T_j = Σ_{i<j} d_i V_ij                                                        (1)
/// which is algorithm 1 with U = V⁻¹ and errors e_j = (x_j - ŵ_j) V_jj: the updates are the same numbers, but U is
/// never needed.
///
/// Every T_j takes its terms in ascending i, each in one fused multiply-add of f32; divisions are divisions. Rows do
/// not meet. So kernel sets, threads and blocks do not change a bit of the result.
///
/// Rows lie in tiles of kSweepRows: element (row, column) of `columns` columns is at
/// [row / kSweepRows][column][row % kSweepRows]. Rows past the last are padding with weights 0 and scales 1.
inline constexpr std::int64_t kSweepRows = 32;
inline constexpr std::int64_t kSweepStrip = 6;  ///< columns of V that accumulate_sums reads together

/// `columns` rounded up to whole strips: how many columns the sums of a block have.
static constexpr std::int64_t sweep_columns(std::int64_t columns) noexcept {
  return (columns + kSweepStrip - 1) / kSweepStrip * kSweepStrip;
}

/// V[0 : terms, first : first + columns) in strips: [strip][terms][kSweepStrip], the last one filled up with zeros.
/// @param factor  V, `stride` floats a row
/// @param strips  [strip_begin, strip_end) of them are written
void pack_factor_strips(const float* factor, std::int64_t stride, std::int64_t terms, std::int64_t first,
                        std::int64_t columns, std::int64_t strip_begin, std::int64_t strip_end, float* strips) noexcept;

/// T of a block of columns for neighbouring tiles: the terms of the columns that are done are added in order.
struct SumTerms {
  const float* differences = nullptr;  ///< [tiles][tile_columns][kSweepRows], the first `terms` columns hold d
  std::int64_t tiles = 0, tile_columns = 0, terms = 0;
  const float* strips = nullptr;  ///< pack_factor_strips of the block
  std::int64_t columns = 0;       ///< of the block
  float* sums = nullptr;          ///< [tiles][sweep_columns(columns)][kSweepRows]
};
using AccumulateSums = void (*)(const SumTerms& args) noexcept;
void accumulate_sums_scalar(const SumTerms& args) noexcept;

/// One tile inside a block of columns. Columns count from the beginning of the block.
struct SweepTile {
  float* weights = nullptr;       ///< [columns][kSweepRows]: w, which becomes d
  float* sums = nullptr;          ///< [columns][kSweepRows]: T of everything before `first`
  const float* factor = nullptr;  ///< V at the block's first column and row; null: V is the identity
  std::int64_t factor_stride = 0, columns = 0;
  std::int64_t first = 0, last = 0;  ///< the columns to work on
};

/// x of columns [first, last) given that those before `first` are done: w + T V⁻¹.
/// @param expected  out [last - first][kSweepRows]
using ExpectWeights = void (*)(const SweepTile& tile, float* expected) noexcept;
void expect_weights_scalar(const SweepTile& tile, float* expected) noexcept;

/// Grids of the tile's rows, and what becomes of their weights.
struct SweepGrid {
  const float* scale = nullptr;         ///< [groups][group_stride], at the tile's first row
  const float* zero_point = nullptr;    ///< as scale
  const std::int32_t* group = nullptr;  ///< group of each column of the block
  std::int64_t group_stride = 0;
  float top = 0.0F;  ///< 2^bits - 1
  /// false: code = clamp(rne(x / scale) + zero_point, 0, top), zero points are integers (GPTQ).
  /// true: code = clamp(rne(x / max(scale, 1e-9) + zero_point), 0, top) (SpQR). ŵ = scale * (code - zero_point).
  bool real_zero = false;
  /// A weight with e² > threshold keeps x itself: ŵ = x, e = 0, its code is that of 0.
  float threshold = 0.0F;
  std::uint8_t* codes = nullptr;     ///< out [columns][kSweepRows]
  std::uint8_t* outliers = nullptr;  ///< out [columns][kSweepRows], 1 for a weight that is kept; null: no threshold
  float* kept = nullptr;             ///< out [columns][kSweepRows]: x; null: no threshold
  double* loss = nullptr;            ///< [kSweepRows], takes ½ e² of every column
  double* squared = nullptr;         ///< [kSweepRows], takes d² of every column
};
/// Quantizes columns [first, last) from left to right and adds their terms to the sums of all columns behind them in
/// the block.
using QuantizeColumnsInOrder = void (*)(const SweepTile& tile, const SweepGrid& grid) noexcept;
void quantize_columns_in_order_scalar(const SweepTile& tile, const SweepGrid& grid) noexcept;

}  // namespace qs::kernels
