#include "backend/model/affine_range.h"

#include <ATen/ATen.h>

namespace qs {

AffineRange affine_range_of_ends(const at::Tensor& low, const at::Tensor& high, int bits, bool symmetric) {
  const double steps = static_cast<double>((std::int64_t{1} << bits) - 1);
  const at::Tensor empty = at::logical_and(low == 0, high == 0);
  const at::Tensor lo = low.masked_fill(empty, -1.0);
  const at::Tensor hi = high.masked_fill(empty, 1.0);
  AffineRange range;
  range.scale = (hi - lo) / steps;
  range.zero_point = symmetric ? at::full_like(range.scale, (steps + 1.0) / 2.0) : at::round(-lo / range.scale);
  return range;
}

AffineRange affine_range(const at::Tensor& x, int bits, bool symmetric, bool compat_reference) {
  const at::Tensor wide = x.to(at::kFloat);
  at::Tensor low = at::clamp_max(wide.amin(-1, true), 0.0);
  at::Tensor high = at::clamp_min(wide.amax(-1, true), 0.0);
  if (symmetric) {
    high = at::maximum(at::abs(low), high);
    low = compat_reference ? at::where(low < 0, -high, low) : -high;
  }
  return affine_range_of_ends(low, high, bits, symmetric);
}

at::Tensor affine_codes(const at::Tensor& x, const AffineRange& range, int bits) {
  const double steps = static_cast<double>((std::int64_t{1} << bits) - 1);
  return at::clamp(at::round(x.to(at::kFloat) / range.scale) + range.zero_point, 0.0, steps);
}

at::Tensor affine_values(const at::Tensor& codes, const AffineRange& range) {
  return range.scale * (codes - range.zero_point);
}

at::Tensor fake_quantize(const at::Tensor& x, int bits, bool symmetric, bool compat_reference) {
  const AffineRange range = affine_range(x, bits, symmetric, compat_reference);
  return affine_values(affine_codes(x, range, bits), range).to(x.scalar_type());
}

}  // namespace qs
