#include <cmath>

#include "kernels/affine.h"
#include "kernels/float_formats.h"

namespace qs::kernels {
namespace {

float rounded(float value, Compute compute) noexcept { return compute == Compute::F16 ? round_to_f16(value) : value; }

/// A1 on one group of `count` values, `stride` apart. Codes are written with the same stride.
void quantize_group(const float* x, std::int64_t count, std::int64_t stride, int bits, Compute compute,
                    std::uint8_t* codes, std::int64_t code_stride, float* scale, float* group_min) noexcept {
  float low = x[0];
  float high = x[0];
  for (std::int64_t i = 1; i < count; ++i) {
    const float value = x[i * stride];
    if (value < low) low = value;
    if (value > high) high = value;
  }
  const auto top = static_cast<float>((1 << bits) - 1);
  const float step = rounded(rounded(high - low, compute) / top, compute);
  *scale = step;
  *group_min = low;
  for (std::int64_t i = 0; i < count; ++i) {
    float code = 0.0F;
    if (step > 0.0F) code = rounded(rounded(x[i * stride] - low, compute) / step, compute);
    if (!(code > 0.0F)) code = 0.0F;
    if (code > top) code = top;
    codes[i * code_stride] = static_cast<std::uint8_t>(std::nearbyint(code));
  }
}

}  // namespace

void quantize_rows_scalar(const RowGroups& args) noexcept {
  const std::int64_t groups = args.columns / args.group_size;
  for (std::int64_t row = 0; row < args.rows; ++row)
    for (std::int64_t group = 0; group < groups; ++group)
      quantize_group(args.x + row * args.row_stride + group * args.group_size, args.group_size, 1, args.bits,
                     args.compute, args.codes + row * args.columns + group * args.group_size, 1,
                     args.scale + row * groups + group, args.group_min + row * groups + group);
}

void quantize_columns_scalar(const ColumnGroups& args) noexcept {
  for (std::int64_t group = 0; group < args.rows / args.group_size; ++group)
    for (std::int64_t column = 0; column < args.columns; ++column)
      quantize_group(args.x + group * args.group_size * args.row_stride + column, args.group_size, args.row_stride,
                     args.bits, args.compute, args.codes + group * args.group_size * args.columns + column,
                     args.columns, args.scale + group * args.columns + column,
                     args.group_min + group * args.columns + column);
}

void dequantize_rows(const std::uint8_t* codes, const float* scale, const float* group_min, std::int64_t rows,
                     std::int64_t columns, std::int64_t group_size, Compute compute, float* x) noexcept {
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t column = 0; column < columns; ++column) {
      const std::int64_t group = row * (columns / group_size) + column / group_size;
      const auto code = static_cast<float>(codes[row * columns + column]);
      x[row * columns + column] = rounded(rounded(code * scale[group], compute) + group_min[group], compute);
    }
}

void dequantize_columns(const std::uint8_t* codes, const float* scale, const float* group_min, std::int64_t rows,
                        std::int64_t columns, std::int64_t group_size, Compute compute, float* x) noexcept {
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t column = 0; column < columns; ++column) {
      const std::int64_t group = row / group_size * columns + column;
      const auto code = static_cast<float>(codes[row * columns + column]);
      x[row * columns + column] = rounded(rounded(code * scale[group], compute) + group_min[group], compute);
    }
}

void quantize_rows_symmetric(const float* x, std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                             std::int64_t group_size, int bits, Compute compute, std::int8_t* codes,
                             float* scale) noexcept {
  const auto top = static_cast<float>((1 << (bits - 1)) - 1);
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t begin = 0; begin < columns; begin += group_size) {
      const float* const group = x + row * row_stride + begin;
      float absmax = rounded(1e-5F, compute);
      for (std::int64_t i = 0; i < group_size; ++i)
        if (std::fabs(group[i]) > absmax) absmax = std::fabs(group[i]);
      const float step = rounded(absmax / top, compute);
      scale[row * (columns / group_size) + begin / group_size] = step;
      for (std::int64_t i = 0; i < group_size; ++i) {
        float code = step > 0.0F ? rounded(group[i] / step, compute) : 0.0F;
        if (code > top) code = top;
        if (code < -top) code = -top;
        codes[row * columns + begin + i] = static_cast<std::int8_t>(std::nearbyint(code));
      }
    }
}

void dequantize_rows_symmetric(const std::int8_t* codes, const float* scale, std::int64_t rows, std::int64_t columns,
                               std::int64_t group_size, Compute compute, float* x) noexcept {
  for (std::int64_t row = 0; row < rows; ++row)
    for (std::int64_t column = 0; column < columns; ++column)
      x[row * columns + column] = rounded(
          static_cast<float>(codes[row * columns + column]) * scale[row * (columns / group_size) + column / group_size],
          compute);
}

std::int64_t first_not_finite(const float* x, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i)
    if (!std::isfinite(x[i])) return i;
  return -1;
}

}  // namespace qs::kernels
