#include "backend/methods/column_sweep.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "kernels/dispatch.h"

namespace qs {
namespace {

constexpr double kFlopsAStep = 8e9;         // between two looks at the stop flag
constexpr std::int64_t kTilesTogether = 4;  // their differences and a block's strips fit the second cache
constexpr std::int64_t kRows = kernels::kSweepRows;

}  // namespace

ColumnSweep::ColumnSweep(const at::Tensor& weight, const at::Tensor& order, at::Tensor factor)
    : rows_(weight.size(0)),
      columns_(weight.size(1)),
      tiles_((rows_ + kRows - 1) / kRows),
      factor_(std::move(factor)),
      weights_(at::empty({tiles_, columns_, kRows}, at::kFloat)) {
  const float* const from = weight.data_ptr<float>();
  const auto* const column_of = order.data_ptr<std::int64_t>();
  float* const to = weights_.data_ptr<float>();
  for_tiles(1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t tile = first; tile < last; ++tile) {
      const std::int64_t rows = std::min(kRows, rows_ - tile * kRows);
      float* const tiled = to + tile * columns_ * kRows;
      if (rows < kRows) std::fill(tiled, tiled + columns_ * kRows, 0.0F);
      for (std::int64_t begin = 0; begin < columns_; begin += kColumnsOfALine) {
        const std::int64_t end = std::min(begin + kColumnsOfALine, columns_);
        for (std::int64_t r = 0; r < rows; ++r) {
          const float* const row = from + (tile * kRows + r) * columns_;
          for (std::int64_t j = begin; j < end; ++j) tiled[j * kRows + r] = row[column_of[j]];
        }
      }
    }
  });
}

void ColumnSweep::for_tiles(std::int64_t unit, const std::function<void(std::int64_t, std::int64_t)>& work) const {
  at::parallel_for(0, (tiles_ + unit - 1) / unit, 1,
                   [&](std::int64_t first, std::int64_t last) { work(first * unit, std::min(last * unit, tiles_)); });
}

void ColumnSweep::pack_strips(std::int64_t begin, std::int64_t end) {
  const std::int64_t columns = kernels::sweep_columns(end - begin);
  strips_.resize(static_cast<std::size_t>(columns * begin));
  at::parallel_for(0, columns / kernels::kSweepStrip, 4, [&](std::int64_t first, std::int64_t last) {
    kernels::pack_factor_strips(factor_.data_ptr<float>(), columns_, begin, begin, end - begin, first, last,
                                strips_.data());
  });
}

void ColumnSweep::start_block(std::int64_t begin, std::int64_t end, const JobContext& job) {
  begin_ = begin, end_ = end;
  const std::int64_t tile_sums = kernels::sweep_columns(end - begin) * kRows;
  sums_.assign(static_cast<std::size_t>(tiles_ * tile_sums), 0.0F);
  job.checkpoint(begin, columns_, "Quantizing columns");
  if (!factor_.defined() || begin == 0) return;
  pack_strips(begin, end);
  const float* const differences = weights_.data_ptr<float>();
  const kernels::AccumulateSums accumulate = kernels::kernel_set().accumulate_sums;
  const double flops_a_tile = 2.0 * static_cast<double>(begin) * static_cast<double>(tile_sums);
  const auto share = std::max(2 * kTilesTogether,
                              static_cast<std::int64_t>(kFlopsAStep / flops_a_tile) / kTilesTogether * kTilesTogether);
  for (std::int64_t tile = 0; tile < tiles_; tile += share) {
    job.checkpoint(begin, columns_, "Quantizing columns");
    const std::int64_t count = std::min(share, tiles_ - tile);
    at::parallel_for(0, (count + kTilesTogether - 1) / kTilesTogether, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t group = first; group < last; ++group) {
        const std::int64_t at = tile + group * kTilesTogether;
        accumulate({differences + at * columns_ * kRows, std::min(kTilesTogether, tile + count - at), columns_, begin,
                    strips_.data(), end - begin, sums_.data() + at * tile_sums});
      }
    });
  }
}

kernels::SweepTile ColumnSweep::tile(std::int64_t index, std::int64_t first, std::int64_t last, std::int64_t end) {
  kernels::SweepTile tile;
  tile.weights = weights_.data_ptr<float>() + (index * columns_ + begin_) * kRows;
  tile.sums = sums_.data() + index * kernels::sweep_columns(end_ - begin_) * kRows;
  if (factor_.defined()) tile.factor = factor_.data_ptr<float>() + begin_ * columns_ + begin_;
  tile.factor_stride = columns_;
  tile.columns = end - begin_;
  tile.first = first - begin_;
  tile.last = last - begin_;
  return tile;
}

at::Tensor ColumnSweep::expected() {
  const std::int64_t columns = end_ - begin_;
  at::Tensor tiled = at::empty({tiles_, columns, kRows}, at::kFloat);
  float* const to = tiled.data_ptr<float>();
  const kernels::ExpectWeights expect = kernels::kernel_set().expect_weights;
  for_tiles(1, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t t = first; t < last; ++t) expect(tile(t, begin_, end_, end_), to + t * columns * kRows);
  });
  return tiled.permute({0, 2, 1}).reshape({tiles_ * kRows, columns}).narrow(0, 0, rows_);
}

}  // namespace qs
