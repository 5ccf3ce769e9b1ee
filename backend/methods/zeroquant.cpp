#include "backend/methods/zeroquant.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kTernaryThreshold = 0.7;
constexpr double kMaxZeroPoint = 32767.0;

double symmetric_steps(int bits, ZeroQuantScale rule) {
  const double half = static_cast<double>(std::int64_t{1} << (bits - 1));
  return rule == ZeroQuantScale::Code ? half : half - 1.0;
}

double range_steps(int bits, ZeroQuantScale rule) {
  const double levels = static_cast<double>(std::int64_t{1} << bits);
  return rule == ZeroQuantScale::Code ? levels : levels - 1.0;
}

/// A scale that is 0, or too small for f32, belongs to a run of zeros.
at::Tensor one_where_zero(const at::Tensor& scale) { return at::where(scale > 0.0, scale, at::ones_like(scale)); }

at::Tensor symmetric_codes(const at::Tensor& x, const at::Tensor& scale, int bits) {
  const double half = static_cast<double>(std::int64_t{1} << (bits - 1));
  return at::round(x / scale).clamp_(-half, half - 1.0);
}

struct OffsetRange {
  at::Tensor scale, steps_to_min;  ///< offset = scale * steps_to_min
};

OffsetRange asymmetric_range(const at::Tensor& min, const at::Tensor& max, int bits, ZeroQuantScale rule) {
  at::Tensor scale = (max - min) / range_steps(bits, rule);
  // A run of equal values is its own offset.
  scale = one_where_zero(at::where(scale > 0.0, scale, min.abs()));
  // Far from 0 the offset must still be counted in 16 bits.
  scale = at::maximum(scale, at::maximum(min.abs(), max.abs()) / kMaxZeroPoint);
  return {scale, at::round(min / scale)};
}

at::Tensor asymmetric_codes(const at::Tensor& x, const OffsetRange& range, int bits) {
  const double top = static_cast<double>((std::int64_t{1} << bits) - 1);
  return at::round((x - range.steps_to_min * range.scale) / range.scale).clamp_(0.0, top);
}

struct UnroundedCodes {
  at::Tensor codes, scale, zero_point;
};

UnroundedCodes codes_of(const at::Tensor& x, const RunQuantizer& quantizer) {
  const int bits = quantizer.bits;
  switch (quantizer.grid) {
    case RunGrid::Symmetric: {
      const double half = static_cast<double>(std::int64_t{1} << (bits - 1));
      const at::Tensor scale = one_where_zero(at::amax(x.abs(), {1}, true) / symmetric_steps(bits, quantizer.rule));
      return {symmetric_codes(x, scale, bits) + half, scale, at::full_like(scale, half)};
    }
    case RunGrid::Asymmetric: {
      const OffsetRange range = asymmetric_range(at::amin(x, {1}, true), at::amax(x, {1}, true), bits, quantizer.rule);
      return {asymmetric_codes(x, range, bits), range.scale, -range.steps_to_min};
    }
    case RunGrid::Ternary: {
      const at::Tensor magnitude = x.abs();
      const at::Tensor kept = magnitude > magnitude.mean(1, true) * kTernaryThreshold;
      const at::Tensor count = kept.sum(1, true).to(at::kFloat);
      const at::Tensor scale = one_where_zero((magnitude * kept).sum(1, true) / count.clamp_min(1.0));
      return {at::sign(x) * kept + 1.0, scale, at::ones_like(scale)};
    }
    case RunGrid::Binary: {
      const at::Tensor scale = x.abs().mean(1, true) * 2.0;
      return {(x >= 0.0).to(at::kFloat), scale, at::full_like(scale, 0.5)};
    }
  }
  throw Error(ErrorCode::Internal, "Unknown grid of runs.");
}

std::int64_t nearest_divisor(std::int64_t count, std::int64_t wanted) {
  for (std::int64_t distance = 0; distance < count; ++distance) {
    if (wanted > distance && count % (wanted - distance) == 0) return wanted - distance;
    if (wanted + distance <= count && count % (wanted + distance) == 0) return wanted + distance;
  }
  return count;
}

}  // namespace

ZeroQuantScale parse_zeroquant_scale(const std::string& id) {
  if (id == "code") return ZeroQuantScale::Code;
  if (id == "paper") return ZeroQuantScale::Paper;
  throw Error(ErrorCode::InvalidArgument, "scale_rule must be code or paper; it is '" + id + "'.");
}

RunCodes quantize_runs(const at::Tensor& runs, const RunQuantizer& quantizer) {
  const UnroundedCodes made = codes_of(runs.to(at::kFloat), quantizer);
  RunCodes result;
  result.scale = stored_scale(made.scale, quantizer.scale_type);
  result.zero_point = made.zero_point;
  result.values = (made.codes - made.zero_point).mul_(result.scale);
  result.codes = made.codes.to(at::kByte);
  return result;
}

std::int64_t RunLayout::length(std::int64_t out_features, std::int64_t in_features, const std::string& name) const {
  if (kind == Kind::PerRow) return in_features;
  if (kind == Kind::GroupSize) {
    check_group_divides(in_features, size, name);
    return size;
  }
  const std::int64_t count = out_features * in_features;
  if (size < 1 || count % size != 0) {
    throw Error(ErrorCode::InvalidArgument,
                "num_groups=" + std::to_string(size) + " does not divide the " + std::to_string(count) +
                    " weights of '" + name + "'. The nearest that does is " +
                    std::to_string(nearest_divisor(count, std::max<std::int64_t>(1, size))) +
                    "; groups=per_row fits every shape.");
  }
  return count / size;
}

RunQuantizer ZeroQuantWeight::quantizer() const {
  RunQuantizer result{bits, symmetric ? RunGrid::Symmetric : RunGrid::Asymmetric, rule, scale_type};
  if (bits == 2) result.grid = RunGrid::Ternary;
  if (bits == 1) result.grid = RunGrid::Binary;
  return result;
}

double ZeroQuantWeight::effective_bits(std::int64_t out_features, std::int64_t in_features) const {
  if (off()) return 16.0;
  const double run = static_cast<double>(layout.length(out_features, in_features, "weight"));
  const bool offsets = quantizer().grid == RunGrid::Asymmetric;
  return bits + (8.0 * static_cast<double>(scale_bytes(scale_type)) + (offsets ? 16.0 : 0.0)) / run;
}

ZeroQuantCodes quantize_zeroquant(const at::Tensor& weight, const ZeroQuantWeight& quantizer, const std::string& name) {
  const at::Tensor wide = finite_weight(weight, name);
  const std::int64_t length = quantizer.layout.length(wide.size(0), wide.size(1), name);
  const RunCodes runs = quantize_runs(wide.view({-1, length}), quantizer.quantizer());
  return {runs.codes.view(wide.sizes()), runs.scale.view({-1}), runs.zero_point.view({-1}),
          runs.values.view(wide.sizes()), length};
}

at::Tensor token_scale(const at::Tensor& rows, const TokenQuantization& quantization) {
  return one_where_zero(at::amax(rows.abs(), {1}, true) / symmetric_steps(quantization.bits, quantization.rule));
}

at::Tensor quantize_tokens(const at::Tensor& x, const TokenQuantization& quantization) {
  if (quantization.off() || x.numel() == 0) return x;
  const at::Tensor rows = x.to(at::kFloat).reshape({-1, x.size(-1)});
  at::Tensor values;
  if (quantization.symmetric) {
    const at::Tensor scale = token_scale(rows, quantization);
    values = symmetric_codes(rows, scale, quantization.bits).mul_(scale);
  } else {
    const OffsetRange range =
        asymmetric_range(at::amin(rows, {1}, true), at::amax(rows, {1}, true), quantization.bits, quantization.rule);
    values = (asymmetric_codes(rows, range, quantization.bits) + range.steps_to_min).mul_(range.scale);
  }
  return values.view(x.sizes()).to(x.scalar_type());
}

at::Tensor quantize_in_range(const at::Tensor& x, const ActivationRange& range, const TokenQuantization& quantization) {
  if (quantization.off() || x.numel() == 0) return x;
  const at::Tensor wide = x.to(at::kFloat), min = at::full({1}, range.min, at::kFloat),
                   max = at::full({1}, range.max, at::kFloat);
  at::Tensor values;
  if (quantization.symmetric) {
    const at::Tensor scale = token_scale(at::maximum(min.abs(), max.abs()).view({1, 1}), quantization).view({1});
    values = symmetric_codes(wide, scale, quantization.bits).mul_(scale);
  } else {
    const OffsetRange offsets = asymmetric_range(min, max, quantization.bits, quantization.rule);
    values = (asymmetric_codes(wide, offsets, quantization.bits) + offsets.steps_to_min).mul_(offsets.scale);
  }
  return values.to(x.scalar_type());
}

void RangeTracker::see(const at::Tensor& x) {
  if (x.numel() == 0) return;
  const ActivationRange batch{at::amin(x).item<double>(), at::amax(x).item<double>()};
  if (empty_) range_ = batch;
  empty_ = false;
  range_.min = momentum_ * range_.min + (1.0 - momentum_) * batch.min;
  range_.max = momentum_ * range_.max + (1.0 - momentum_) * batch.max;
}

TokenQuantizedLinear::TokenQuantizedLinear(std::shared_ptr<const LinearOp> inner, TokenQuantization quantization)
    : inner_(std::move(inner)), quantization_(quantization) {}

}  // namespace qs
