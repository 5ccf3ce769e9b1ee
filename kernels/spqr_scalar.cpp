#include <algorithm>
#include <cmath>

#include "kernels/float_formats.h"
#include "kernels/pack_bits.h"
#include "kernels/spqr.h"

namespace qs::kernels {
namespace {

float statistic_of(const SpqrStatistic& statistic, const SpqrWeight& weight, std::int64_t group,
                   std::int64_t row) noexcept {
  const std::int64_t index = group * weight.out_features + row;
  if (statistic.bits == 0) return statistic.plain == nullptr ? statistic.constant : f16_to_f32(statistic.plain[index]);
  const std::int64_t bit = index * statistic.bits;
  unsigned word = statistic.codes[bit / 8];
  if (bit % 8 + statistic.bits > 8) word |= static_cast<unsigned>(statistic.codes[bit / 8 + 1]) << 8;
  const auto code = static_cast<float>((word >> (bit % 8)) & ((1U << statistic.bits) - 1U));
  const std::int64_t second = group * (weight.out_features / weight.run) + row / weight.run;
  return f16_to_f32(statistic.scale[second]) * (code - f16_to_f32(statistic.zero[second]));
}

float scale_of(const SpqrWeight& weight, std::int64_t group, std::int64_t row) noexcept {
  std::uint16_t half = 0;
  const float scale = statistic_of(weight.scales, weight, group, row);
  f32_to_f16_scalar(&scale, &half, 1);
  return f16_to_f32(half);
}

int code_of(const std::uint8_t* tile, std::int64_t rows, std::int64_t columns, int width, std::int64_t row,
            std::int64_t column) noexcept {
  const int unit = block_unit_bytes(columns * width / 8);
  const std::int64_t byte = column * width / 8;
  return tile[(byte / unit * rows + row) * unit + byte % unit] >> (column * width % 8) & ((1 << width) - 1);
}

}  // namespace

void spqr_gemv_scalar(const SpqrWeight& weight, const GemvArgs& args, const float* group_sums) noexcept {
  const std::int64_t in = weight.in_features, groups = in / weight.group_size;
  const float top = static_cast<float>((1 << weight.bits) - 1);
  for (std::int64_t row = args.row_begin; row < args.row_end; ++row) {
    const std::int64_t first = row / kWeightTileRows * kWeightTileRows;
    const std::int64_t rows = std::min(kWeightTileRows, weight.out_features - first);
    const std::uint8_t* const tile = weight.codes + first * packed_row_bytes(in, weight.bits);
    for (std::int64_t t = 0; t < args.tokens; ++t) {
      const float* const x = args.x + t * in;
      float total = 0.0F;
      for (std::int64_t group = 0; group < groups; ++group) {
        float dot = 0.0F;
        for (std::int64_t i = group * weight.group_size; i < (group + 1) * weight.group_size; ++i) {
          int code = code_of(tile, rows, in, weight.bits == 3 ? 2 : weight.bits, row - first, i);
          if (weight.bits == 3) code += 4 * code_of(tile + rows * in / 4, rows, in, 1, row - first, i);
          dot += static_cast<float>(code) * x[i];
        }
        const float zero = statistic_of(weight.zeros, weight, group, row);
        total += scale_of(weight, group, row) * (dot - zero * group_sums[t * groups + group]);
      }
      for (std::int32_t k = weight.outlier_rows[row]; k < weight.outlier_rows[row + 1]; ++k) {
        const std::int64_t group = weight.outlier_columns[k] / weight.group_size;
        const float zero = statistic_of(weight.zeros, weight, group, row);
        const float dense = scale_of(weight, group, row) * (std::min(top, std::max(0.0F, std::nearbyint(zero))) - zero);
        total += (f16_to_f32(weight.outlier_values[k]) - dense) * x[weight.outlier_columns[k]];
      }
      args.y[t * weight.out_features + row] = total;
    }
  }
}

}  // namespace qs::kernels
