#include "backend/evaluation/kv_overlay.h"

#include <ATen/ATen.h>

#include <optional>

#include "backend/evaluation/tensor_bridge.h"
#include "backend/methods/published_bits.h"

namespace qs {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr double kStepTolerance = 0.02;  ///< of a step: values are rounded to f32 on their way

/// One element with a code.
struct Coded {
  float original, value;
  std::int32_t code;
  std::int64_t group;
};

/// Codes, values and groups of all coded elements, head by head.
template <typename Visit>
void for_each_coded(const KvOverlay& overlay, const at::Tensor& original, const at::Tensor& values,
                    const at::Tensor& codes, const at::Tensor& exempt, const Visit& visit) {
  const float* const x = original.data_ptr<float>();
  const float* const y = values.data_ptr<float>();
  const std::uint8_t* const code = codes.defined() ? codes.data_ptr<std::uint8_t>() : nullptr;
  const bool* const skip = exempt.data_ptr<bool>();
  std::int64_t i = 0;
  for (std::int64_t head = 0; head < overlay.kv_heads; ++head)
    for (std::int64_t token = 0; token < overlay.tokens; ++token)
      for (std::int64_t d = 0; d < overlay.head_dim; ++d, ++i) {
        if (skip[i]) continue;
        visit(Coded{x[i], y[i], code ? code[i] : 0, overlay.group_of(token, head * overlay.head_dim + d)});
      }
}

/// A parameter as [token runs, channel runs] from each layout in which it can have been meant.
std::vector<at::Tensor> layouts(const at::Tensor& parameter, std::int64_t channel_runs) {
  std::vector<at::Tensor> result;
  if (!parameter.defined() || parameter.numel() == 0 || parameter.numel() % channel_runs != 0) return result;
  const at::Tensor p = parameter.to(at::kFloat);
  if (p.dim() == 3) {
    result.push_back(p.transpose(0, 1).reshape({-1, channel_runs}).contiguous());  // heads first
  } else if (p.dim() == 2) {
    if (p.size(1) == channel_runs) result.push_back(p.contiguous());
    if (p.size(0) == channel_runs) result.push_back(p.t().contiguous());
  } else {
    result.push_back(p.reshape({-1, channel_runs}).contiguous());
  }
  return result;
}

struct Levels {
  std::vector<float> scale, group_min, steps;
  std::vector<std::int32_t> counts;
};

/// How far from a whole step a value may lie that rounding moved.
double tolerance(const Coded& e, float scale, float group_min) {
  const double rounding = std::numeric_limits<float>::epsilon() * (std::fabs(e.value) + std::fabs(group_min));
  return kStepTolerance + 4.0 * rounding / std::fabs(scale);
}

/// Levels by these parameters; none when they do not explain every value.
/// @param count  codes of every group; 0: each group has its own, its lowest level half of them below group_min
template <typename Visit>
std::optional<Levels> explain(const at::Tensor& scales, const at::Tensor& minima, std::int64_t groups,
                              std::int64_t count, const Visit& for_each) {
  Levels levels;
  const float* const s = scales.data_ptr<float>();
  const float* const m = minima.data_ptr<float>();
  const std::int64_t known = scales.numel();
  levels.scale.assign(static_cast<std::size_t>(groups), kNaN);
  levels.group_min = levels.scale;
  levels.counts.assign(levels.scale.size(), static_cast<std::int32_t>(std::max<std::int64_t>(1, count)));
  std::copy(s, s + std::min(known, groups), levels.scale.begin());
  std::copy(m, m + std::min(known, groups), levels.group_min.begin());

  // Equal steps: value = group_min + scale * (code + offset), one whole offset a group.
  std::vector<float> offset(levels.scale.size(), kNaN);
  bool inside = true, equal = true, constant = true;
  for_each([&](const Coded& e) {
    if (e.group < 0 || e.group >= known) {
      inside = false;
      return;
    }
    const auto g = static_cast<std::size_t>(e.group);
    const float scale = levels.scale[g], least = levels.group_min[g];
    if (scale == 0.0f) {
      constant = constant && std::fabs(e.value - least) <= 1e-5f * (std::fabs(least) + std::fabs(e.value)) + 1e-12f;
      return;
    }
    const double steps = (static_cast<double>(e.value) - least) / scale - e.code, whole = std::nearbyint(steps);
    if (std::isnan(offset[g])) offset[g] = static_cast<float>(whole);
    equal = equal && std::fabs(steps - offset[g]) <= tolerance(e, scale, least);
  });
  if (!inside || !constant) return std::nullopt;
  if (equal) {
    for (std::size_t g = 0; g < offset.size(); ++g) {
      if (std::isnan(offset[g])) {
        if (count == 0) levels.counts[g] = 1;
        continue;
      }
      levels.group_min[g] += levels.scale[g] * offset[g];
      if (count == 0) levels.counts[g] = std::max(1, static_cast<std::int32_t>(-2.0f * offset[g]));
    }
    return levels;
  }

  // A codebook: value = group_min + scale * step, one step a code.
  std::vector<double> sum(256, 0.0), uses(256, 0.0);
  for_each([&](const Coded& e) {
    const auto g = static_cast<std::size_t>(e.group);
    if (levels.scale[g] == 0.0f) return;
    sum[static_cast<std::size_t>(e.code)] += (static_cast<double>(e.value) - levels.group_min[g]) / levels.scale[g];
    uses[static_cast<std::size_t>(e.code)] += 1.0;
  });
  if (count < 1 || count > 256) return std::nullopt;
  for (std::size_t code = 0; code < static_cast<std::size_t>(count); ++code)
    levels.steps.push_back(uses[code] > 0.0 ? static_cast<float>(sum[code] / uses[code]) : kNaN);
  bool fits = true;
  for_each([&](const Coded& e) {
    const auto g = static_cast<std::size_t>(e.group);
    if (levels.scale[g] == 0.0f || !fits) return;
    const double step = (static_cast<double>(e.value) - levels.group_min[g]) / levels.scale[g];
    fits = e.code < count && std::fabs(step - levels.steps[static_cast<std::size_t>(e.code)]) <=
                                 tolerance(e, levels.scale[g], levels.group_min[g]) / static_cast<double>(count);
  });
  return fits ? std::optional(levels) : std::nullopt;
}

void find_places(KvOverlay& overlay, const at::Tensor& kept) {
  const at::Tensor mask = kept.contiguous();
  const bool* const is_kept = mask.data_ptr<bool>();
  overlay.slots.assign(static_cast<std::size_t>(mask.numel()), -1);
  for (std::int64_t head = 0; head < overlay.kv_heads; ++head) {
    std::int32_t slot = 0;
    for (std::int64_t token = 0; token < overlay.tokens; ++token) {
      const std::int64_t i = head * overlay.tokens + token;
      if (is_kept[i])
        overlay.slots[static_cast<std::size_t>(i)] = slot++;
      else
        ++overlay.evicted_tokens;
    }
  }
  overlay.kept = as_view(mask.to(at::kFloat));
}

void find_runs(KvOverlay& overlay) {
  const std::vector<std::int64_t>& starts = overlay.groups.starts;
  overlay.channel_runs = static_cast<std::int64_t>(starts.size());
  if (starts.empty()) return;
  overlay.run_of_channel.resize(static_cast<std::size_t>(overlay.channels()));
  for (std::int64_t place = 0; place < overlay.channels(); ++place) {
    const std::int64_t channel =
        overlay.groups.order.empty() ? place : overlay.groups.order[static_cast<std::size_t>(place)];
    const auto run = std::upper_bound(starts.begin(), starts.end(), place) - starts.begin() - 1;
    overlay.run_of_channel[static_cast<std::size_t>(channel)] = static_cast<std::int32_t>(run);
  }
}

}  // namespace

KvOverlay make_overlay(const KvMethod& method, const CacheShape& shape, KvRole role, const at::Tensor& original,
                       const QuantizedTensor& quantized, TokenRange range, const at::Tensor& kept) {
  KvOverlay overlay;
  overlay.kv_heads = original.size(0);
  overlay.tokens = original.size(1);
  overlay.head_dim = original.size(2);
  overlay.groups = method.scale_groups(role, shape);
  find_runs(overlay);
  const at::Tensor exempt = quantized.full_precision.defined() ? quantized.full_precision.contiguous()
                                                               : at::zeros(original.sizes(), at::kBool);
  if (kept.defined()) {
    find_places(overlay, kept);
    const at::Tensor coded = at::nonzero(exempt.logical_not().any(2).any(0)).view({-1});
    if (coded.numel() > 0) range = {coded[0].item<std::int64_t>(), coded[-1].item<std::int64_t>() + 1};
    if (coded.numel() == 0) range = {};
  }
  overlay.quantized_begin = range.size() > 0 ? range.begin : 0;
  overlay.quantized_end = range.size() > 0 ? range.end : 0;

  at::Tensor picks = exempt.transpose(0, 1).reshape({overlay.tokens, overlay.channels()}).clone();
  const auto outside = [&](std::int64_t begin, std::int64_t end) {
    if (end > begin) picks.narrow(0, begin, end - begin).fill_(false);
  };
  outside(0, overlay.quantized_begin);
  outside(overlay.quantized_end, overlay.tokens);
  picks.masked_fill_(picks.all(1, true), false);  // a token without a code is kept whole, not picked from
  if (kept.defined())
    picks.logical_and_(
        kept.t().unsqueeze(2).expand({overlay.tokens, overlay.kv_heads, overlay.head_dim}).reshape(picks.sizes()));
  overlay.picked = picks.sum().item<std::int64_t>();
  if (overlay.picked > 0) overlay.picks = as_view(picks.to(at::kFloat));

  const at::Tensor x = original.to(at::kFloat).contiguous(), y = quantized.values.to(at::kFloat).contiguous();
  const at::Tensor codes = quantized.codes.defined() ? quantized.codes.contiguous() : at::Tensor();
  const auto for_each = [&](const auto& visit) { for_each_coded(overlay, x, y, codes, exempt, visit); };
  const std::int64_t token_runs =
      overlay.groups.tokens > 0 ? (overlay.tokens + overlay.groups.tokens - 1) / overlay.groups.tokens : 1;
  const std::int64_t groups = token_runs * overlay.channel_runs;
  std::optional<Levels> levels;
  if (codes.defined() && groups > 0) {
    const std::vector<at::Tensor> scales = layouts(quantized.scale, overlay.channel_runs),
                                  minima = layouts(quantized.group_min, overlay.channel_runs);
    for (std::size_t i = 0; i < std::min(scales.size(), minima.size()) && !levels; ++i)
      levels = explain(scales[i], minima[i], groups, quantized.levels, for_each);
  }

  overlay.low.assign(static_cast<std::size_t>(groups), kNaN);
  overlay.high = overlay.low;
  double bits = 0.0;
  std::int64_t clipped = 0;
  std::int32_t widest = 1;
  for_each([&](const Coded& e) {
    ++overlay.coded;
    if (e.group < 0) return;
    const auto g = static_cast<std::size_t>(e.group);
    overlay.low[g] = std::isnan(overlay.low[g]) ? e.value : std::min(overlay.low[g], e.value);
    overlay.high[g] = std::isnan(overlay.high[g]) ? e.value : std::max(overlay.high[g], e.value);
    widest = std::max(widest, e.code + 1);
    if (levels) bits += std::ceil(std::log2(static_cast<double>(levels->counts[g])));
  });
  if (levels) {
    overlay.scale = std::move(levels->scale);
    overlay.group_min = std::move(levels->group_min);
    overlay.steps = std::move(levels->steps);
    overlay.levels = std::move(levels->counts);
    std::vector<float> below(overlay.low.size(), 0.0f), above(overlay.low.size(), 0.0f);  // half a step at either end
    for (std::size_t g = 0; g < overlay.low.size(); ++g) {
      const std::vector<float> values = overlay.levels_of(static_cast<std::int64_t>(g));
      if (std::isnan(overlay.low[g]) || values.empty()) continue;
      overlay.low[g] = std::min(overlay.low[g], values.front());
      overlay.high[g] = std::max(overlay.high[g], values.back());
      if (values.size() < 2) continue;
      below[g] = 0.5f * (values[1] - values[0]);
      above[g] = 0.5f * (values.back() - values[values.size() - 2]);
    }
    for_each([&](const Coded& e) {
      const auto g = static_cast<std::size_t>(e.group);
      const float slack = 1e-3f * (overlay.high[g] - overlay.low[g]);
      clipped += e.original < overlay.low[g] - below[g] - slack || e.original > overlay.high[g] + above[g] + slack;
    });
  } else {
    const std::int64_t count = quantized.levels > 0 ? quantized.levels : widest;
    bits = std::ceil(std::log2(static_cast<double>(count))) * static_cast<double>(overlay.coded);
  }
  if (overlay.coded > 0) {
    overlay.mean_code_bits = bits / static_cast<double>(overlay.coded);
    if (overlay.has_levels())
      overlay.clipped_fraction = static_cast<double>(clipped) / static_cast<double>(overlay.coded);
  }
  overlay.published_bits = published_bits(method, role, shape, overlay.tokens, overlay.mean_code_bits);
  return overlay;
}

}  // namespace qs
