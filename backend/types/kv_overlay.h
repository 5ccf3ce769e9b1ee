#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "backend/types/scale_groups.h"
#include "backend/types/tensor_view.h"

namespace qs {

/// What a KV method did to the keys or the values of one layer, as views draw it. Planes are [tokens, channels], where
/// channel kv_head * head_dim + d is dimension d of a head. What a scale group has is listed by run of tokens, then by
/// run of channels.
struct KvOverlay {
  std::int64_t tokens = 0, kv_heads = 0, head_dim = 0;
  std::int64_t quantized_begin = 0;  ///< tokens before it are in full precision: attention sinks
  std::int64_t quantized_end = 0;    ///< tokens from here on are in full precision: the window
  ScaleGroups groups;
  std::int64_t channel_runs = 0;
  std::vector<std::int32_t> run_of_channel;  ///< [channels]
  /// Place of a token in the cache of its head, [kv_heads * tokens], -1 where it was evicted; empty: token t is at t.
  std::vector<std::int32_t> slots;

  /// Level of code c in a group: group_min + scale * (steps.empty() ? c : steps[c]). Empty where the values are no
  /// function of their codes, as behind a factorization; `low` and `high` are then those of the reconstruction.
  std::vector<float> scale, group_min;
  std::vector<std::int32_t> levels;  ///< codes that a group has
  std::vector<float> steps;          ///< of a codebook, ascending; NaN where no element took the code
  std::vector<float> low, high;      ///< least and largest value of a group; NaN where it holds no coded element

  TensorView picks;                 ///< 1 where an element of a quantized token was kept in full precision; empty: none
  TensorView kept;                  ///< [kv_heads, tokens], 0 where a token was evicted; empty: all are kept
  std::int64_t coded = 0;           ///< elements with a code
  std::int64_t picked = 0;          ///< elements of `picks`
  std::int64_t evicted_tokens = 0;  ///< summed over the KV heads
  /// Share of coded elements farther outside their range than rounding goes, half a step; NaN without levels.
  double clipped_fraction = std::numeric_limits<double>::quiet_NaN();
  double mean_code_bits = 0.0;   ///< over coded elements
  double published_bits = 16.0;  ///< of a quantized element, counted as the paper does

  std::int64_t channels() const { return kv_heads * head_dim; }
  bool has_levels() const { return !scale.empty(); }

  /// Scale group of an element; -1 when it has none.
  std::int64_t group_of(std::int64_t token, std::int64_t channel) const {
    if (channel_runs == 0) return -1;
    std::int64_t slot = token;
    if (!slots.empty()) slot = slots[static_cast<std::size_t>(channel / head_dim * tokens + token)];
    if (slot < 0) return -1;
    const std::int64_t run = groups.tokens > 0 ? slot / groups.tokens : 0;
    return run * channel_runs + run_of_channel[static_cast<std::size_t>(channel)];
  }

  /// Every value that an element of `group` may take, ascending; empty when that is not known.
  std::vector<float> levels_of(std::int64_t group) const {
    std::vector<float> values;
    if (group < 0 || !has_levels()) return values;
    const auto g = static_cast<std::size_t>(group);
    for (std::int32_t code = 0; code < levels[g]; ++code) {
      const float step = steps.empty() ? static_cast<float>(code) : steps[static_cast<std::size_t>(code)];
      const float value = group_min[g] + scale[g] * step;
      if (std::isfinite(value)) values.push_back(value);
    }
    std::sort(values.begin(), values.end());
    return values;
  }

  /// Clip range of an element; two NaN when it has none.
  std::pair<float, float> range_of(std::int64_t token, std::int64_t channel) const {
    const std::int64_t group = group_of(token, channel);
    const float none = std::numeric_limits<float>::quiet_NaN();
    if (group < 0 || group >= static_cast<std::int64_t>(low.size())) return {none, none};
    return {low[static_cast<std::size_t>(group)], high[static_cast<std::size_t>(group)]};
  }
};

}  // namespace qs
