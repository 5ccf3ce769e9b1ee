#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "backend/types/job.h"

namespace at {
class Tensor;
}

namespace qs {

/// Rows [first_row, first_row + rows) of one block of columns, transposed so that a column is contiguous.
struct SweepTile {
  float* weights = nullptr;  ///< [columns][rows]
  std::int64_t rows = 0, first_row = 0;
  std::int64_t begin = 0, columns = 0;  ///< of the block in the matrix
  float* column(std::int64_t j) const { return weights + j * rows; }
};

/// w_k ← w_k - e U_jk for the columns k behind j (G4), all rows of a tile at once.
void propagate_error(const SweepTile& tile, std::int64_t j, const float* error, const float* upper_row);

/// Copies a block of a row-major matrix into a tile and its errors back out.
void load_tile(const float* weight, std::int64_t in_features, const SweepTile& tile);
void store_errors(const float* errors, const SweepTile& tile, float* out);

/// One block of the sweep (GPTQ, arXiv:2210.17323, algorithm 1, inner loop): for each column of [begin, end) from left
/// to right, `quantize_column(tile, j, error)` chooses the codes of the tile's rows from `tile.column(j)` and fills
/// error[row] = (w - ŵ) / U_jj; the columns behind j inside the block then take the update. Rows are independent, so
/// tiles of rows run in parallel and stay in the cache.
/// @param weight  [out_features][in_features]; not changed inside the block: only the errors leave it
/// @param upper   [in_features][in_features], the factor U
/// @param errors  out [out_features][end - begin]
template <typename QuantizeColumn>
void sweep_block(const float* weight, std::int64_t out_features, std::int64_t in_features, const float* upper,
                 std::int64_t begin, std::int64_t end, std::int64_t tile_rows, float* errors,
                 const QuantizeColumn& quantize_column) {
  const std::int64_t columns = end - begin, tiles = (out_features + tile_rows - 1) / tile_rows;
  at::parallel_for(0, tiles, 1, [&](std::int64_t first, std::int64_t last) {
    std::vector<float> weights(static_cast<std::size_t>(columns * tile_rows)), error(weights.size());
    for (std::int64_t t = first; t < last; ++t) {
      const SweepTile tile{weights.data(), std::min(tile_rows, out_features - t * tile_rows), t * tile_rows, begin,
                           columns};
      load_tile(weight, in_features, tile);
      for (std::int64_t j = 0; j < columns; ++j) {
        float* const e = error.data() + j * tile.rows;
        quantize_column(tile, j, e);
        propagate_error(tile, j, e, upper + (begin + j) * in_features + begin);
      }
      store_errors(error.data(), tile, errors);
    }
  });
}

/// W[:, end:] ← W[:, end:] - E U[begin:end, end:], a share of the rows at a time so that a stop is noticed.
/// @param weight  f32 [out_features, in_features], changed; errors [out_features, end - begin]
void propagate_block(at::Tensor& weight, const at::Tensor& upper, const at::Tensor& errors, std::int64_t begin,
                     std::int64_t end, const JobContext& job);

/// rne without a library call, so that loops over it become vector code. |x| < 2^22; beyond it the result is some
/// number as large, which every caller clamps.
inline float round_half_even(float x) {
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23
  return (x + kMagic) - kMagic;
}

}  // namespace qs
