#include <algorithm>
#include <cmath>

#include "kernels/column_sweep.h"

namespace qs::kernels {
namespace {

constexpr float kLeastScale = 1e-9F;

float code_of(float x, float scale, float zero_point, const SweepGrid& grid) noexcept {
  const float code = grid.real_zero ? std::nearbyint(x / std::max(scale, kLeastScale) + zero_point)
                                    : std::nearbyint(x / scale) + zero_point;
  return std::min(grid.top, std::max(0.0F, code));
}

}  // namespace

void pack_factor_strips(const float* factor, std::int64_t stride, std::int64_t terms, std::int64_t first,
                        std::int64_t columns, std::int64_t strip_begin, std::int64_t strip_end,
                        float* strips) noexcept {
  for (std::int64_t strip = strip_begin; strip < strip_end; ++strip) {
    const std::int64_t begin = strip * kSweepStrip, count = std::min(kSweepStrip, columns - begin);
    float* to = strips + strip * terms * kSweepStrip;
    for (std::int64_t i = 0; i < terms; ++i, to += kSweepStrip) {
      const float* const from = factor + i * stride + first + begin;
      for (std::int64_t c = 0; c < kSweepStrip; ++c) to[c] = c < count ? from[c] : 0.0F;
    }
  }
}

void accumulate_sums_scalar(const SumTerms& args) noexcept {
  const std::int64_t columns = sweep_columns(args.columns);
  for (std::int64_t tile = 0; tile < args.tiles; ++tile) {
    const float* const differences = args.differences + tile * args.tile_columns * kSweepRows;
    float* const sums = args.sums + tile * columns * kSweepRows;
    for (std::int64_t k = 0; k < columns; ++k) {
      const float* const v = args.strips + k / kSweepStrip * args.terms * kSweepStrip + k % kSweepStrip;
      float* const sum = sums + k * kSweepRows;
      for (std::int64_t i = 0; i < args.terms; ++i) {
        for (std::int64_t r = 0; r < kSweepRows; ++r) {
          sum[r] = std::fma(differences[i * kSweepRows + r], v[i * kSweepStrip], sum[r]);
        }
      }
    }
  }
}

void expect_weights_scalar(const SweepTile& tile, float* expected) noexcept {
  const float* const sums = tile.sums + tile.first * kSweepRows;
  const std::int64_t count = tile.last - tile.first;
  std::copy(sums, sums + count * kSweepRows, expected);
  for (std::int64_t i = 0; i < count && tile.factor != nullptr; ++i) {
    const float* const v = tile.factor + (tile.first + i) * tile.factor_stride + tile.first;
    float* const shift = expected + i * kSweepRows;
    for (std::int64_t r = 0; r < kSweepRows; ++r) shift[r] /= v[i];
    for (std::int64_t k = i + 1; k < count; ++k) {
      float* const later = expected + k * kSweepRows;
      for (std::int64_t r = 0; r < kSweepRows; ++r) later[r] = std::fma(-shift[r], v[k], later[r]);
    }
  }
  const float* const weights = tile.weights + tile.first * kSweepRows;
  for (std::int64_t i = 0; i < count * kSweepRows; ++i) expected[i] += weights[i];
}

void quantize_columns_in_order_scalar(const SweepTile& tile, const SweepGrid& grid) noexcept {
  for (std::int64_t j = tile.first; j < tile.last; ++j) {
    const float* const v = tile.factor == nullptr ? nullptr : tile.factor + j * tile.factor_stride;
    const float diagonal = v == nullptr ? 1.0F : v[j];
    const float* const scale = grid.scale + grid.group[j] * grid.group_stride;
    const float* const zero_point = grid.zero_point + grid.group[j] * grid.group_stride;
    float* const weights = tile.weights + j * kSweepRows;
    for (std::int64_t r = 0; r < kSweepRows; ++r) {
      const std::int64_t at = j * kSweepRows + r;
      const float x = weights[r] + tile.sums[at] / diagonal;
      float code = code_of(x, scale[r], zero_point[r], grid);
      float value = scale[r] * (code - zero_point[r]);
      float error = (x - value) * diagonal;
      if (grid.outliers != nullptr) {
        const bool outlier = error * error > grid.threshold;
        if (outlier) code = code_of(0.0F, scale[r], zero_point[r], grid), value = x, error = 0.0F;
        grid.outliers[at] = outlier ? 1 : 0;
        grid.kept[at] = x;
      }
      grid.codes[at] = static_cast<std::uint8_t>(code);
      weights[r] -= value;
      grid.loss[r] += 0.5 * static_cast<double>(error) * static_cast<double>(error);
      grid.squared[r] += static_cast<double>(weights[r]) * static_cast<double>(weights[r]);
    }
    for (std::int64_t k = j + 1; k < tile.columns && v != nullptr; ++k) {
      float* const later = tile.sums + k * kSweepRows;
      for (std::int64_t r = 0; r < kSweepRows; ++r) later[r] = std::fma(weights[r], v[k], later[r]);
    }
  }
}

}  // namespace qs::kernels
