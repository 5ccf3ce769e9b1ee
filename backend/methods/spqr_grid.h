#pragma once

#include <cstdint>

namespace qs {

/// value = scale * (code - zero), the zero a real number: the grid of SpQR (weights specification 6.1).
struct RealZeroGrid {
  float scale = 1.0F, zero = 0.0F;
  float code(float value, float top) const;  ///< clamp(rne(value / max(scale, 1e-9) + zero), 0, top)
  float value(float code) const { return scale * (code - zero); }
};

/// The grid of the range [low, high], which need not contain 0; equal ends become -1 and 1.
RealZeroGrid real_zero_grid(float low, float high, int bits, bool symmetric, bool round_zero);

/// E(group) - E(group without i) for each i (Q2): what leaving weight i out of the group's range and sum gains. Leaving
/// out changes the range only at a single minimum or maximum, so three grids are enough.
/// @param values, factor  [count]: weights of one row and the diagonal of U at their columns; gain out [count]
void leave_one_out_gains(const float* values, const float* factor, std::int64_t count, int bits, bool symmetric,
                         float* gain);

/// Second level (section 6.2): `count` scales or zeros of neighbouring rows on a grid of their own, replaced by what
/// that grid makes of them.
/// @param codes  out [count]. @return the grid
RealZeroGrid quantize_statistics(float* values, std::int64_t count, int bits, bool symmetric, std::uint8_t* codes);

}  // namespace qs
