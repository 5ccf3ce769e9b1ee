#include "backend/methods/kv_groups.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "backend/types/error.h"

namespace qs {
namespace {

at::Tensor rounded_to_f16(const at::Tensor& x) { return x.to(at::kHalf).to(at::kFloat); }

at::Tensor divided(const at::Tensor& x, double divisor) { return x / at::full({1}, divisor, x.options()); }

at::Tensor stored(const at::Tensor& x, GroupStore store, const char* what) {
  if (store == GroupStore::F32) return x;
  at::Tensor rounded = rounded_to_f16(x);
  if (!at::isfinite(rounded).all().item<bool>()) {
    throw Error(ErrorCode::InvalidArgument, std::string("A group's ") + what + " of " +
                                                std::to_string(x.abs().max().item<double>()) +
                                                " does not fit a 16-bit float (at most 65504). Use store=f32.");
  }
  return rounded;
}

GroupCodes quantize_symmetric(const at::Tensor& x, const GroupQuantizer& quantizer) {
  const double top = static_cast<double>((1 << (quantizer.bits - 1)) - 1);
  const bool half = quantizer.compute == GroupCompute::F16;
  const auto step = [half](const at::Tensor& t) { return half ? rounded_to_f16(t) : t; };
  const at::Tensor scale = step(divided(step(x.abs().amax(-1, true).clamp_min(1e-5)), top));
  const at::Tensor code = at::round(step(x / scale)).clamp(-top, top);
  const at::Tensor kept = stored(scale, quantizer.store, "scale");
  return {(code + top).to(at::kByte), kept.squeeze(-1), (kept * -top).squeeze(-1), step(code * kept)};
}

}  // namespace

const char* role_name(KvRole role) { return role == KvRole::Key ? "key" : "value"; }

GroupCodes quantize_groups(const at::Tensor& input, const GroupQuantizer& quantizer) {
  const bool half = quantizer.compute == GroupCompute::F16;
  const at::Tensor x = half ? rounded_to_f16(input) : input;
  if (quantizer.symmetric) return quantize_symmetric(x, quantizer);
  const double top = static_cast<double>((1 << quantizer.bits) - 1);
  const auto step = [half](const at::Tensor& t) { return half ? rounded_to_f16(t) : t; };

  const at::Tensor group_min = x.amin(-1, true);
  const at::Tensor group_max = x.amax(-1, true);
  const at::Tensor scale = step(divided(step(group_max - group_min), top));
  const at::Tensor kept_scale = stored(scale, quantizer.store, "scale");
  const at::Tensor kept_min = stored(group_min, quantizer.store, "minimum");
  const at::Tensor position = step(step(x - group_min) / scale).clamp(0.0, top);
  const at::Tensor code = at::round(position).masked_fill(scale == 0, 0.0);
  return {code.to(at::kByte), kept_scale.squeeze(-1), kept_min.squeeze(-1), step(step(code * kept_scale) + kept_min)};
}

at::Tensor as_stored(const at::Tensor& x, GroupStore store) {
  const at::Tensor wide = x.to(at::kFloat);
  if (store == GroupStore::F32 || x.scalar_type() == at::kHalf) return wide;
  at::Tensor rounded = rounded_to_f16(wide);
  if (at::isinf(rounded).any().item<bool>()) {
    throw Error(ErrorCode::InvalidArgument,
                "A value of magnitude " + std::to_string(wide.abs().max().item<double>()) +
                    " does not fit the 16-bit floats of the cache (at most 65504). Use store=f32.");
  }
  return rounded;
}

void check_kv_tensor(const at::Tensor& x) {
  if (x.dim() != 3 || !at::isFloatingType(x.scalar_type())) {
    std::string found;
    for (const std::int64_t extent : x.sizes()) found += (found.empty() ? "" : ", ") + std::to_string(extent);
    throw Error(ErrorCode::InvalidArgument,
                "Keys and values must be floats of shape [kv_heads, tokens, head_dim], found shape [" + found + "].");
  }
}

void check_finite(const at::Tensor& x, KvRole role, std::int64_t first_token) {
  if (x.numel() == 0 || std::isfinite(x.to(at::kFloat).abs().sum().item<double>())) return;
  const at::Tensor cube = x.dim() == 2 ? x.unsqueeze(1) : x;
  const at::Tensor bad = at::isfinite(cube).logical_not();
  const at::Tensor where = bad.nonzero();
  if (where.size(0) == 0) return;  // only the sum overflowed
  const std::int64_t head = where[0][0].item<std::int64_t>();
  const std::int64_t token = where[0][1].item<std::int64_t>();
  const std::int64_t channel = where[0][2].item<std::int64_t>();
  const bool nan = std::isnan(cube[head][token][channel].item<double>());
  throw Error(ErrorCode::InvalidArgument,
              std::string("The ") + role_name(role) + " of head " + std::to_string(head) + ", token " +
                  std::to_string(first_token + token) + ", channel " + std::to_string(channel) + " is " +
                  (nan ? "not a number" : "infinite") + " (" + std::to_string(where.size(0)) +
                  " such values in all); a quantizer needs finite values. Look for the cause in the model or capture.");
}

std::int64_t nearest_divisor(std::int64_t whole, std::int64_t wanted, std::int64_t step, std::int64_t smallest,
                             std::int64_t largest) {
  std::int64_t best = 0;
  for (std::int64_t candidate = smallest; candidate <= std::min(whole, largest); ++candidate) {
    if (whole % candidate != 0 || candidate % step != 0) continue;
    if (best == 0 || std::llabs(candidate - wanted) < std::llabs(best - wanted)) best = candidate;
  }
  return best;
}

}  // namespace qs
