#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <vector>

#include "backend/types/job.h"
#include "kernels/column_sweep.h"

namespace qs {

/// A weight on its way through the sweep of GPTQ or SpQR: blocks of columns from left to right, each of them
///
///     start_block(begin, end)      T of its columns from everything before it
///     expected(...)                what a column is then expected to hold, for ranges that follow the updates
///     for_tiles([...])             kernels::QuantizeColumnsInOrder on each tile of rows
///
/// The numbers, and the layout in tiles, are those of kernels/column_sweep.h: a block's size changes no bit of them.
class ColumnSweep {
 public:
  /// @param weight  f32 [out_features, in_features], not kept
  /// @param order   int64 [in_features]: the column of `weight` at each place of the sweep
  /// @param factor  V, f32 [in_features, in_features] in the order of the sweep (only the upper triangle is read), or
  ///                undefined: H is the identity and nothing is passed on
  ColumnSweep(const at::Tensor& weight, const at::Tensor& order, at::Tensor factor);

  std::int64_t rows() const { return rows_; }
  std::int64_t columns() const { return columns_; }
  std::int64_t tiles() const { return tiles_; }
  std::int64_t padded_rows() const { return tiles_ * kernels::kSweepRows; }

  /// Sums of columns [begin, end); all columns before `begin` are quantized.
  void start_block(std::int64_t begin, std::int64_t end, const JobContext& job);
  /// Columns of the block as they are expected now, f32 [rows, block]; to be asked before any of them is quantized.
  at::Tensor expected();
  /// One tile of the block that was started, for columns [first, last) of the matrix. Updates end at `end`.
  kernels::SweepTile tile(std::int64_t index, std::int64_t first, std::int64_t last, std::int64_t end);

  /// Calls work(tile_begin, tile_end) on several threads; `unit` neighbouring tiles stay together.
  void for_tiles(std::int64_t unit, const std::function<void(std::int64_t, std::int64_t)>& work) const;

 private:
  void pack_strips(std::int64_t begin, std::int64_t end);

  std::int64_t rows_ = 0, columns_ = 0, tiles_ = 0;
  std::int64_t begin_ = 0, end_ = 0;  ///< the block
  at::Tensor factor_;
  at::Tensor weights_;  ///< f32 [tiles, columns, kSweepRows]
  std::vector<float> strips_, sums_;
};

/// Between rows and tiles go pieces of this many columns: a line of the cache for each row.
inline constexpr std::int64_t kColumnsOfALine = 16;

/// Calls take(row, place, order[place], element) for all elements of a matrix in tiles [tiles, columns, kSweepRows], on
/// several threads: a row is visited by one thread, its places from left to right.
template <typename Element, typename Take>
void for_tiled_rows(const ColumnSweep& sweep, const Element* tiled, const at::Tensor& order, const Take& take) {
  constexpr std::int64_t kRows = kernels::kSweepRows;
  const std::int64_t columns = sweep.columns();
  const auto* const column_of = order.data_ptr<std::int64_t>();
  sweep.for_tiles(1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t tile = first; tile < last; ++tile) {
      const std::int64_t rows = std::min(kRows, sweep.rows() - tile * kRows);
      const Element* const from = tiled + tile * columns * kRows;
      for (std::int64_t begin = 0; begin < columns; begin += kColumnsOfALine) {
        const std::int64_t end = std::min(begin + kColumnsOfALine, columns);
        for (std::int64_t r = 0; r < rows; ++r) {
          for (std::int64_t j = begin; j < end; ++j) take(tile * kRows + r, j, column_of[j], from[j * kRows + r]);
        }
      }
    }
  });
}

}  // namespace qs
