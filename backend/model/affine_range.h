#pragma once

#include <ATen/core/Tensor.h>

namespace qs {

/// Scale and integer zero point of each row: x ≈ scale * (code - zero_point). f32, the shape of x with a last extent
/// of 1.
struct AffineRange {
  at::Tensor scale, zero_point;
};

/// Range over the last axis that always contains 0 (weights specification 1.3, R1 to R4).
/// @param x           float tensor; computed in f32
/// @param symmetric   the range is -max|x| to max|x|
/// @param compat_reference  with `symmetric`: a row without negative values keeps 0 as its lower end, as the published
/// code does
AffineRange affine_range(const at::Tensor& x, int bits, bool symmetric, bool compat_reference = false);

/// R3 and R4 for given ends: a row whose ends are both 0 gets -1 and 1.
/// @param low, high  f32, low <= 0 <= high
AffineRange affine_range_of_ends(const at::Tensor& low, const at::Tensor& high, int bits, bool symmetric);

/// R5: clamp(rne(x / scale) + zero_point, 0, 2^bits - 1), as f32.
at::Tensor affine_codes(const at::Tensor& x, const AffineRange& range, int bits);
/// scale * (codes - zero_point), f32.
at::Tensor affine_values(const at::Tensor& codes, const AffineRange& range);

/// Quantizes and dequantizes each row of the last axis and returns the type of x.
at::Tensor fake_quantize(const at::Tensor& x, int bits, bool symmetric, bool compat_reference = false);

}  // namespace qs
