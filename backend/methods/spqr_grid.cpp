#include "backend/methods/spqr_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qs {
namespace {

constexpr float kLeastScale = 1e-9F;
/// rne without a library call, so that loops over it become vector code. |x| < 2^22; beyond it the result is some
/// number as large, which every caller clamps.
float round_half_even(float x) {
  constexpr float kMagic = 12582912.0F;  // 1.5 * 2^23
  return (x + kMagic) - kMagic;
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float top_code(int bits) { return static_cast<float>((1 << bits) - 1); }

/// The two smallest and the two largest values; without its single minimum a group begins at the second.
struct Extremes {
  float low = kInfinity, second_low = kInfinity, high = -kInfinity, second_high = -kInfinity;
  explicit Extremes(const float* values, std::int64_t count) {
    for (std::int64_t i = 0; i < count; ++i) {
      const float v = values[i];
      second_low = v < low ? low : std::min(second_low, v);
      low = std::min(low, v);
      second_high = v > high ? high : std::max(second_high, v);
      high = std::max(high, v);
    }
  }
};

double squared_error(const RealZeroGrid& grid, float value, float factor, float top) {
  const double error = (grid.value(grid.code(value, top)) - value) / factor;
  return error * error;
}

}  // namespace

float RealZeroGrid::code(float value, float top) const {
  return std::min(top, std::max(0.0F, round_half_even(value / std::max(scale, kLeastScale) + zero)));
}

RealZeroGrid real_zero_grid(float low, float high, int bits, bool symmetric, bool round_zero) {
  const float top = top_code(bits);
  if (symmetric) {
    high = std::max(std::abs(low), high);
    if (low < 0) low = -high;
  }
  if (low == high) low = -1.0F, high = 1.0F;
  RealZeroGrid grid;
  grid.scale = (high - low) / top;
  grid.zero = symmetric ? (top + 1.0F) / 2.0F : -low / grid.scale;
  if (round_zero && !symmetric) grid.zero = std::nearbyint(grid.zero);
  return grid;
}

void leave_one_out_gains(const float* values, const float* factor, std::int64_t count, int bits, bool symmetric,
                         float* gain) {
  const float top = top_code(bits);
  const Extremes ends(values, count);
  const RealZeroGrid all = real_zero_grid(ends.low, ends.high, bits, symmetric, false);
  double total = 0.0;
  for (std::int64_t i = 0; i < count; ++i) {
    const double own = squared_error(all, values[i], factor[i], top);
    gain[i] = static_cast<float>(own);
    total += own;
  }
  for (std::int64_t i = 0; i < count && count > 1; ++i) {
    const bool lowest = values[i] == ends.low && ends.second_low != ends.low;
    const bool highest = values[i] == ends.high && ends.second_high != ends.high;
    if (!lowest && !highest) continue;
    const RealZeroGrid rest = real_zero_grid(lowest ? ends.second_low : ends.low,
                                             highest ? ends.second_high : ends.high, bits, symmetric, false);
    double without = 0.0;
    for (std::int64_t k = 0; k < count; ++k) {
      if (k != i) without += squared_error(rest, values[k], factor[k], top);
    }
    gain[i] = static_cast<float>(total - without);
  }
}

RealZeroGrid quantize_statistics(float* values, std::int64_t count, int bits, bool symmetric, std::uint8_t* codes) {
  const auto [low, high] = std::minmax_element(values, values + count);
  const RealZeroGrid grid = real_zero_grid(*low, *high, bits, symmetric, false);
  const float top = top_code(bits);
  for (std::int64_t i = 0; i < count; ++i) {
    const float code = grid.code(values[i], top);
    codes[i] = static_cast<std::uint8_t>(code);
    values[i] = grid.value(code);
  }
  return grid;
}

}  // namespace qs
