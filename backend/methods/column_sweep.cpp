#include "backend/methods/column_sweep.h"

#include <ATen/ATen.h>

namespace qs {
namespace {

constexpr double kFlopsAStep = 8e9;

}  // namespace

void propagate_error(const SweepTile& tile, std::int64_t j, const float* error, const float* upper_row) {
  const std::int64_t rows = tile.rows;
  std::int64_t k = j + 1;
  // Two columns share one read of the errors.
  for (; k + 1 < tile.columns; k += 2) {
    float* __restrict first = tile.column(k);
    float* __restrict second = tile.column(k + 1);
    const float* __restrict e = error;
    const float u = upper_row[k], v = upper_row[k + 1];
    for (std::int64_t r = 0; r < rows; ++r) {
      first[r] -= e[r] * u;
      second[r] -= e[r] * v;
    }
  }
  if (k < tile.columns) {
    float* __restrict column = tile.column(k);
    const float* __restrict e = error;
    const float u = upper_row[k];
    for (std::int64_t r = 0; r < rows; ++r) column[r] -= e[r] * u;
  }
}

void load_tile(const float* weight, std::int64_t in_features, const SweepTile& tile) {
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    const float* const row = weight + (tile.first_row + r) * in_features + tile.begin;
    for (std::int64_t j = 0; j < tile.columns; ++j) tile.weights[j * tile.rows + r] = row[j];
  }
}

void store_errors(const float* errors, const SweepTile& tile, float* out) {
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    float* const row = out + (tile.first_row + r) * tile.columns;
    for (std::int64_t j = 0; j < tile.columns; ++j) row[j] = errors[j * tile.rows + r];
  }
}

void propagate_block(at::Tensor& weight, const at::Tensor& upper, const at::Tensor& errors, std::int64_t begin,
                     std::int64_t end, const JobContext& job) {
  const std::int64_t rest = weight.size(1) - end, rows = weight.size(0);
  if (rest <= 0) return;
  const at::Tensor factor = upper.narrow(0, begin, end - begin).narrow(1, end, rest);
  const double flops_a_row = 2.0 * static_cast<double>(end - begin) * static_cast<double>(rest);
  const auto share = std::max<std::int64_t>(64, static_cast<std::int64_t>(kFlopsAStep / flops_a_row));
  for (std::int64_t row = 0; row < rows; row += share) {
    job.checkpoint(begin, weight.size(1), "Quantizing columns");
    const std::int64_t count = std::min(share, rows - row);
    weight.narrow(0, row, count).narrow(1, end, rest).addmm_(errors.narrow(0, row, count), factor, 1.0, -1.0);
  }
}

}  // namespace qs
