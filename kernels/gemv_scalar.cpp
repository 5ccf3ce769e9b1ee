#include <cmath>

#include "kernels/float_formats.h"
#include "kernels/gemv.h"
#include "kernels/pack_bits.h"

namespace qs::kernels {
namespace {

constexpr std::int64_t kStrip = 512;

float dense_at(DenseType type, const void* weight, std::int64_t index) noexcept {
  switch (type) {
    case DenseType::F32:
      return static_cast<const float*>(weight)[index];
    case DenseType::F16:
      return f16_to_f32(static_cast<const std::uint16_t*>(weight)[index]);
    case DenseType::BF16:
      return bf16_to_f32(static_cast<const std::uint16_t*>(weight)[index]);
  }
  return 0.0F;
}

/// Codes [begin, begin + count) of row `row` of a tile of `rows` rows; begin is a multiple of 8.
void codes_of_row(const std::uint8_t* tile, std::int64_t rows, std::int64_t columns, int bits, std::int64_t row,
                  std::int64_t begin, std::int64_t count, std::uint8_t* codes) noexcept {
  const int widths[2] = {bits == 3 ? 2 : bits, 1};
  for (std::int64_t j = 0; j < count; ++j) codes[j] = 0;
  for (int run = 0; run < (bits == 3 ? 2 : 1); ++run) {
    const int width = widths[run];
    const std::int64_t run_bytes = columns * width / 8;
    const int unit = block_unit_bytes(run_bytes);
    const unsigned mask = (1U << width) - 1U;
    for (std::int64_t j = 0; j < count; ++j) {
      const std::int64_t bit = (begin + j) * width;
      const std::int64_t byte = bit / 8;
      const unsigned field = tile[(byte / unit * rows + row) * unit + byte % unit] >> (bit % 8);
      codes[j] = static_cast<std::uint8_t>(codes[j] | ((field & mask) << (2 * run)));
    }
    tile += rows * run_bytes;
  }
}

}  // namespace

void packed_gemv_scalar(const PackedWeight& weight, const GemvArgs& args) noexcept {
  std::uint8_t codes[kStrip];
  const std::int64_t groups = weight.in_features / weight.group_size;
  const std::int64_t row_bytes = packed_row_bytes(weight.in_features, weight.bits);
  for (std::int64_t row = args.row_begin; row < args.row_end; ++row) {
    const std::int64_t tile_row = row / kWeightTileRows * kWeightTileRows;
    const std::int64_t left = weight.out_features - tile_row;
    const std::int64_t rows = left < kWeightTileRows ? left : kWeightTileRows;
    for (std::int64_t t = 0; t < args.tokens; ++t) args.y[t * weight.out_features + row] = 0.0F;
    for (std::int64_t group = 0; group < groups; ++group) {
      const float scale = f16_to_f32(weight.scale[row * groups + group]);
      const auto zero = static_cast<float>(weight.zero_point[row * groups + group]);
      for (std::int64_t t = 0; t < args.tokens; ++t) {
        float dot = 0.0F;
        float total = 0.0F;
        for (std::int64_t begin = 0; begin < weight.group_size; begin += kStrip) {
          const std::int64_t count = weight.group_size - begin < kStrip ? weight.group_size - begin : kStrip;
          const std::int64_t column = group * weight.group_size + begin;
          codes_of_row(weight.codes + tile_row * row_bytes, rows, weight.in_features, weight.bits, row - tile_row,
                       column, count, codes);
          const float* const x = args.x + t * weight.in_features + column;
          for (std::int64_t j = 0; j < count; ++j) {
            dot += x[j] * static_cast<float>(codes[j]);
            total += x[j];
          }
        }
        args.y[t * weight.out_features + row] += scale * (dot - zero * total);
      }
    }
  }
}

void dense_gemv_scalar(DenseType type, const void* weight, std::int64_t in_features, std::int64_t out_features,
                       const GemvArgs& args) noexcept {
  for (std::int64_t row = args.row_begin; row < args.row_end; ++row)
    for (std::int64_t t = 0; t < args.tokens; ++t) {
      float sum = 0.0F;
      for (std::int64_t i = 0; i < in_features; ++i)
        sum += args.x[t * in_features + i] * dense_at(type, weight, row * in_features + i);
      args.y[t * out_features + row] = sum;
    }
}

void quantize_activations_scalar(const float* x, std::int64_t tokens, std::int64_t in_features, int bits,
                                 ActivationRange range, const QuantizedActivations& out) noexcept {
  const auto top = static_cast<float>((1 << bits) - 1);
  const auto half = static_cast<float>((1 << (bits - 1)) - 1);
  for (std::int64_t t = 0; t < tokens; ++t) {
    const float* const row = x + t * in_features;
    float low = 0.0F;
    float high = 0.0F;
    for (std::int64_t i = 0; i < in_features; ++i) {
      if (row[i] < low) low = row[i];
      if (row[i] > high) high = row[i];
    }
    float scale = 0.0F;
    float zero = half;
    float last = 2.0F * half;
    if (range == ActivationRange::Absmax) {
      float absmax = high > -low ? high : -low;
      if (absmax < 1e-5F) absmax = 1e-5F;
      scale = absmax / half;
    } else {
      if (low == 0.0F && high == 0.0F) {
        low = -1.0F;
        high = 1.0F;
      }
      scale = (high - low) / top;
      zero = std::nearbyint(-low / scale);
      last = top;
    }
    std::int32_t total = 0;
    for (std::int64_t i = 0; i < in_features; ++i) {
      float code = std::nearbyint(row[i] / scale) + zero;
      if (!(code > 0.0F)) code = 0.0F;
      if (code > last) code = last;
      const auto stored = static_cast<std::uint8_t>(code);
      out.codes[t * in_features + i] = stored;
      total += stored;
    }
    out.scale[t] = scale;
    out.zero_point[t] = static_cast<std::int32_t>(zero);
    out.code_sum[t] = total;
  }
}

void int8_gemm_scalar(const Int8Weight& weight, const QuantizedActivations& x, std::int64_t tokens,
                      std::int64_t row_begin, std::int64_t row_end, float* y) noexcept {
  const std::int64_t inner = weight.in_features;
  for (std::int64_t t = 0; t < tokens; ++t)
    for (std::int64_t row = row_begin; row < row_end; ++row) {
      std::int32_t dot = 0;
      for (std::int64_t i = 0; i < inner; ++i)
        dot += static_cast<std::int32_t>(x.codes[t * inner + i]) *
               static_cast<std::int32_t>(weight.codes[row * inner + i]);
      const std::int64_t za = x.zero_point[t];
      const std::int64_t zw = weight.zero_point != nullptr ? weight.zero_point[row] : 0;
      const std::int64_t exact = dot - za * weight.code_sum[row] - zw * x.code_sum[t] + inner * za * zw;
      y[t * weight.out_features + row] = static_cast<float>(exact) * (x.scale[t] * weight.scale[row]);
    }
}

void sum_rows(const std::int8_t* codes, std::int64_t out_features, std::int64_t in_features,
              std::int32_t* code_sum) noexcept {
  for (std::int64_t row = 0; row < out_features; ++row) {
    std::int32_t total = 0;
    for (std::int64_t i = 0; i < in_features; ++i) total += codes[row * in_features + i];
    code_sum[row] = total;
  }
}

}  // namespace qs::kernels
