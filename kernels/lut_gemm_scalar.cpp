#include <cmath>

#include "kernels/float_formats.h"
#include "kernels/lut_gemm.h"

namespace qs::kernels {
namespace {

constexpr int kRun = 8;
constexpr int kRunsOfStrip = kLutStrip / kRun;

float scale_at(const BitPlaneWeight& weight, const void* values, std::int64_t index) noexcept {
  if (weight.scale_type == DenseType::F32) return static_cast<const float*>(values)[index];
  const std::uint16_t bits = static_cast<const std::uint16_t*>(values)[index];
  return weight.scale_type == DenseType::F16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

/// table[p + 2^k] = table[p] + 2 x[k], from the sum with all signs negative.
void signed_sums(const float* x, int count, float* table) noexcept {
  table[0] = 0.0F;
  for (int k = 0; k < count; ++k) table[0] -= x[k];
  for (int k = 0; k < count; ++k)
    for (int p = 0; p < 1 << k; ++p) table[p + (1 << k)] = table[p] + 2.0F * x[k];
}

/// Columns [begin, begin + count) of one group, count at most kLutStrip, begin a multiple of 8.
struct Strip {
  std::int64_t group = 0, begin = 0, count = 0;
  float sum = 0.0F;         ///< of the inputs
  float x[kLutStrip] = {};  ///< zeros behind the last column
};

int plane_byte(const BitPlaneWeight& weight, std::int64_t column, int plane, std::int64_t row) noexcept {
  const std::int64_t word = (column / 32 * weight.bits + plane) * weight.out_features + row;
  return static_cast<int>(weight.planes[word] >> (column % 32)) & 0xFF;
}

template <typename Dot>
void add_strip(const BitPlaneWeight& weight, const GemvArgs& args, const Strip& strip, float* y,
               const Dot& dot) noexcept {
  const std::int64_t outs = weight.out_features;
  for (std::int64_t row = args.row_begin; row < args.row_end; ++row) {
    for (int plane = 0; plane < weight.bits; ++plane)
      y[row] += scale_at(weight, weight.alpha, (strip.group * weight.bits + plane) * outs + row) * dot(plane, row);
    if (weight.offset != nullptr) y[row] += scale_at(weight, weight.offset, strip.group * outs + row) * strip.sum;
  }
}

void add_strip_f32(const BitPlaneWeight& weight, const GemvArgs& args, const Strip& strip, float* y) noexcept {
  float tables[kRunsOfStrip][256];
  const std::int64_t runs = (strip.count + kRun - 1) / kRun;
  for (std::int64_t run = 0; run < runs; ++run) lut_table(strip.x + run * kRun, tables[run]);
  add_strip(weight, args, strip, y, [&](int plane, std::int64_t row) {
    float sum = 0.0F;
    for (std::int64_t run = 0; run < runs; ++run)
      sum += tables[run][plane_byte(weight, strip.begin + run * kRun, plane, row)];
    return sum;
  });
}

/// @param most  largest entry of a table, 127 or 32767
void add_strip_integer(const BitPlaneWeight& weight, const GemvArgs& args, const Strip& strip, float most,
                       float* y) noexcept {
  std::int32_t tables[2 * kRunsOfStrip][16];
  const std::int64_t runs = (strip.count + kRun - 1) / kRun;
  float top = 0.0F;
  for (std::int64_t half = 0; half < 2 * runs; ++half) {
    float size = 0.0F;
    for (int k = 0; k < 4; ++k) size += std::fabs(strip.x[half * 4 + k]);
    top = size > top ? size : top;
  }
  const float inverse = top > 0.0F ? most / top : 0.0F;
  for (std::int64_t half = 0; half < 2 * runs; ++half) {
    float sums[16];
    signed_sums(strip.x + half * 4, 4, sums);
    for (int p = 0; p < 16; ++p) tables[half][p] = static_cast<std::int32_t>(std::nearbyint(sums[p] * inverse));
  }
  const float scale = top / most;
  add_strip(weight, args, strip, y, [&](int plane, std::int64_t row) {
    std::int32_t sum = 0;
    for (std::int64_t run = 0; run < runs; ++run) {
      const int byte = plane_byte(weight, strip.begin + run * kRun, plane, row);
      sum += tables[2 * run][byte & 15] + tables[2 * run + 1][byte >> 4];
    }
    return scale * static_cast<float>(sum);
  });
}

}  // namespace

void lut_table(const float* x, float* table) noexcept { signed_sums(x, kRun, table); }

void lut_gemm_scalar(const BitPlaneWeight& weight, const GemvArgs& args, LutArithmetic arithmetic) noexcept {
  const std::int64_t groups = weight.in_features / weight.group_size;
  for (std::int64_t t = 0; t < args.tokens; ++t) {
    const float* const x = args.x + t * weight.in_features;
    float* const y = args.y + t * weight.out_features;
    for (std::int64_t row = args.row_begin; row < args.row_end; ++row) y[row] = 0.0F;
    for (std::int64_t group = 0; group < groups; ++group)
      for (std::int64_t done = 0; done < weight.group_size; done += kLutStrip) {
        Strip strip;
        strip.group = group;
        strip.begin = group * weight.group_size + done;
        strip.count = weight.group_size - done < kLutStrip ? weight.group_size - done : kLutStrip;
        for (std::int64_t i = 0; i < strip.count; ++i) {
          strip.x[i] = x[strip.begin + i];
          strip.sum += strip.x[i];
        }
        if (arithmetic == LutArithmetic::F32)
          add_strip_f32(weight, args, strip, y);
        else
          add_strip_integer(weight, args, strip, arithmetic == LutArithmetic::Int8 ? 127.0F : 32767.0F, y);
      }
  }
}

}  // namespace qs::kernels
