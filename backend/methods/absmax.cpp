#include "backend/methods/absmax.h"

#include <ATen/ATen.h>

namespace qs {
namespace {

constexpr double kFloor = 1e-5;

double positive_levels(int bits) { return static_cast<double>((1 << (bits - 1)) - 1); }

}  // namespace

at::Tensor absmax_scale(const at::Tensor& rows, int bits) {
  return at::amax(rows.abs(), {-1}, true).clamp_min(kFloor) / positive_levels(bits);
}

AffineRows quantize_absmax(const at::Tensor& rows, int bits, ScaleType scale_type) {
  const at::Tensor x = rows.to(at::kFloat);
  const double levels = positive_levels(bits);
  const at::Tensor scale = absmax_scale(x, bits);
  const at::Tensor steps = at::round(x / scale);
  AffineRows result;
  result.scale = stored_scale(scale, scale_type);
  result.zero_point = at::full_like(scale, levels);
  result.codes = (steps + levels).to(at::kByte);
  result.values = steps * result.scale;
  return result;
}

at::Tensor fake_quantize_absmax_native(const at::Tensor& rows, int bits) {
  const at::Tensor scale = absmax_scale(rows, bits);
  return at::round(rows / scale) * scale;
}

}  // namespace qs
