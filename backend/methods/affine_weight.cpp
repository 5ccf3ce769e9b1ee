#include "backend/methods/affine_weight.h"

#include <ATen/ATen.h>

#include <limits>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kMseExponent = 2.4;
constexpr int kMseGrid = 100;
constexpr int kMseSteps = 80;

void search_mse_range(const at::Tensor& rows, const AffineQuantizer& quantizer, AffineRange& range) {
  const double steps = static_cast<double>((1 << quantizer.bits) - 1);
  const at::Tensor first_zero_point = range.zero_point;
  // The ends follow from the range of i = 0, whose zero point is rounded; so they are taken from the rows again.
  at::Tensor lo = at::clamp_max(at::amin(rows, {-1}, true), 0.0), hi = at::clamp_min(at::amax(rows, {-1}, true), 0.0);
  if (quantizer.symmetric) {
    hi = at::maximum(lo.abs(), hi);
    lo = quantizer.compat_reference ? at::where(lo < 0, -hi, lo) : -hi;
  }
  const at::Tensor empty = (lo == 0).logical_and(hi == 0);
  lo = at::where(empty, at::full_like(lo, -1.0), lo);
  hi = at::where(empty, at::full_like(hi, 1.0), hi);

  at::Tensor best = at::full_like(range.scale, std::numeric_limits<double>::infinity());
  AffineRange kept = range;
  for (int i = 0; i < kMseSteps; ++i) {
    const double shrink = 1.0 - static_cast<double>(i) / kMseGrid;
    AffineRange tried;
    tried.scale = (hi * shrink - lo * shrink) / steps;
    tried.zero_point = quantizer.symmetric ? first_zero_point : at::round(-(lo * shrink) / tried.scale);
    at::Tensor error = affine_values(affine_codes(rows, tried, quantizer.bits), tried);
    error = error.sub_(rows).abs_().pow_(kMseExponent).sum(-1, true);
    const at::Tensor better = error < best;
    best = at::where(better, error, best);
    kept.scale = at::where(better, tried.scale, kept.scale);
    kept.zero_point = at::where(better, tried.zero_point, kept.zero_point);
  }
  range = kept;
}

}  // namespace

ScaleType parse_scale_type(const std::string& id) {
  if (id == "f16") return ScaleType::F16;
  if (id == "bf16") return ScaleType::BF16;
  if (id == "f32") return ScaleType::F32;
  throw Error(ErrorCode::InvalidArgument, "scale_dtype must be f16, bf16 or f32; it is '" + id + "'.");
}

std::int64_t scale_bytes(ScaleType type) { return type == ScaleType::F32 ? 4 : 2; }

at::Tensor stored_scale(const at::Tensor& scale, ScaleType type) {
  if (type == ScaleType::F32) return scale;
  const at::Tensor stored = scale.to(type == ScaleType::F16 ? at::kHalf : at::kBFloat16).to(at::kFloat);
  if (!at::isfinite(stored).all().item<bool>()) {
    throw Error(ErrorCode::InvalidArgument, "A scale of " + std::to_string(scale.max().item<float>()) +
                                                " does not fit the type of the scales. Choose scale_dtype=f32.");
  }
  return stored;
}

AffineRange affine_weight_range(const at::Tensor& rows, const AffineQuantizer& quantizer) {
  const at::Tensor x = rows.to(at::kFloat);
  AffineRange range = affine_range(x, quantizer.bits, quantizer.symmetric, quantizer.compat_reference);
  if (quantizer.mse_range) search_mse_range(x, quantizer, range);
  return range;
}

AffineRows quantize_affine(const at::Tensor& rows, const AffineQuantizer& quantizer) {
  const at::Tensor x = rows.to(at::kFloat);
  AffineRange range = affine_weight_range(x, quantizer);

  AffineRows result;
  result.scale = stored_scale(range.scale, quantizer.scale_type);
  result.zero_point = range.zero_point;
  if (quantizer.store_then_quantize) {
    // A scale below the smallest number of the stored type became 0; its row keeps the codes of the unrounded scale.
    range.scale = at::where(result.scale > 0, result.scale, range.scale);
  }
  const at::Tensor codes = affine_codes(x, range, quantizer.bits);
  result.codes = codes.to(at::kByte);
  result.values = affine_values(codes, {result.scale, range.zero_point});
  return result;
}

}  // namespace qs
