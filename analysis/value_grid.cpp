#include "analysis/value_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "backend/types/error.h"

namespace qs::analysis {

ValueGrid value_grid(std::span<const float> original, std::span<const float> reconstructed,
                     std::span<const float> codes, int bins, int max_levels) {
  if ((!reconstructed.empty() && reconstructed.size() != original.size()) ||
      (!codes.empty() && codes.size() != original.size())) {
    throw Error(ErrorCode::InvalidArgument, "A distribution needs original, reconstruction and codes of one shape.");
  }
  if (bins < 1) throw Error(ErrorCode::InvalidArgument, "A histogram needs at least one bin.");
  ValueGrid grid;
  grid.count = static_cast<std::int64_t>(original.size());
  grid.original.assign(static_cast<std::size_t>(bins), 0);
  double low = std::numeric_limits<double>::infinity(), high = -low, sum = 0.0, squares = 0.0;
  for (const float x : original) {
    if (!std::isfinite(x)) {
      ++grid.not_finite;
      continue;
    }
    low = std::min<double>(low, x);
    high = std::max<double>(high, x);
    sum += x;
    squares += static_cast<double>(x) * x;
  }
  const std::int64_t finite = grid.count - grid.not_finite;
  if (finite == 0) return grid;
  grid.mean = sum / static_cast<double>(finite);
  grid.deviation = std::sqrt(std::max(0.0, squares / static_cast<double>(finite) - grid.mean * grid.mean));
  grid.absmax = std::max(std::abs(low), std::abs(high));
  if (high <= low) {
    const double pad = std::max(1e-6, std::abs(low) * 0.5);
    low -= pad;
    high += pad;
  }
  grid.low = low;
  grid.high = high;
  const double per_bin = bins / (high - low);
  const auto bin_of = [&](float x) {
    return static_cast<std::size_t>(
        std::clamp(static_cast<std::int64_t>((x - low) * per_bin), std::int64_t{0}, std::int64_t{bins - 1}));
  };
  for (const float x : original) {
    if (std::isfinite(x)) ++grid.original[bin_of(x)];
  }
  if (reconstructed.empty()) return grid;
  grid.reconstructed.assign(static_cast<std::size_t>(bins), 0);
  std::vector<float> seen;
  for (std::size_t i = 0; i < reconstructed.size(); ++i) {
    if (!std::isfinite(reconstructed[i])) continue;
    ++grid.reconstructed[bin_of(reconstructed[i])];
    if (!codes.empty() && codes[i] == 255.0f) {
      ++grid.full_precision;
    } else {
      seen.push_back(reconstructed[i]);
    }
  }
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  grid.distinct_levels = static_cast<std::int64_t>(seen.size());
  if (seen.size() > static_cast<std::size_t>(max_levels)) {
    // Evenly by rank, so that what is drawn stands for all of them.
    const std::size_t kept = static_cast<std::size_t>(max_levels), count = seen.size();
    for (std::size_t i = 0; i < kept; ++i) seen[i] = seen[i * (count - 1) / std::max<std::size_t>(1, kept - 1)];
    seen.resize(kept);
  }
  grid.levels = std::move(seen);
  return grid;
}

QuantizerGrid quantizer_grid(const KvOverlay& overlay, const TensorView& original, const TensorView& codes,
                             const ElementRange& range, std::int64_t max_groups) {
  QuantizerGrid grid;
  if (original.shape != std::vector<std::int64_t>{overlay.kv_heads, overlay.tokens, overlay.head_dim})
    throw Error(ErrorCode::InvalidArgument, "A quantizer grid needs the tensor that the overlay was made of.");
  std::set<std::int64_t> groups;
  float picked_low = std::numeric_limits<float>::infinity(), picked_high = -picked_low;
  float inlier_low = picked_low, inlier_high = picked_high;
  for (std::int64_t head = range.head_begin; head < range.head_end; ++head)
    for (std::int64_t token = range.token_begin; token < range.token_end; ++token)
      for (std::int64_t d = range.dim_begin; d < range.dim_end; ++d) {
        const std::int64_t i = (head * overlay.tokens + token) * overlay.head_dim + d;
        const std::int64_t channel = head * overlay.head_dim + d;
        const float x = original.data[i];
        if (!overlay.picks.empty() && overlay.picks.data[token * overlay.channels() + channel] > 0.0f) {
          ++grid.picked;
          picked_low = std::min(picked_low, x);
          picked_high = std::max(picked_high, x);
          continue;
        }
        if (!codes.empty() && codes.data[i] == 255.0f) continue;
        const auto [low, high] = overlay.range_of(token, channel);
        if (low != low) continue;
        ++grid.coded;
        const std::int64_t group = overlay.group_of(token, channel);
        groups.insert(group);
        const auto count = [](std::vector<std::int64_t>& counts, std::size_t at) {
          if (counts.size() <= at) counts.resize(at + 1, 0);
          ++counts[at];
        };
        if (!codes.empty()) count(grid.codes, static_cast<std::size_t>(codes.data[i]));
        if (overlay.has_levels())
          count(grid.widths, static_cast<std::size_t>(std::ceil(
                                 std::log2(static_cast<double>(overlay.levels[static_cast<std::size_t>(group)])))));
        inlier_low = std::min(inlier_low, x);
        inlier_high = std::max(inlier_high, x);
        const float slack = 1e-3f * (high - low);
        grid.outside += x < low - slack || x > high + slack;
        if (grid.coded == 1) {
          grid.low = grid.narrow_low = low;
          grid.high = grid.narrow_high = high;
        }
        grid.low = std::min(grid.low, low);
        grid.high = std::max(grid.high, high);
        grid.narrow_low = std::max(grid.narrow_low, low);
        grid.narrow_high = std::min(grid.narrow_high, high);
      }
  grid.groups = static_cast<std::int64_t>(groups.size());
  if (grid.picked > 0 && picked_low <= inlier_low) grid.inlier_low = inlier_low;
  if (grid.picked > 0 && picked_high >= inlier_high) grid.inlier_high = inlier_high;
  if (grid.groups > max_groups) return grid;
  for (const std::int64_t group : groups) {
    const std::vector<float> levels = overlay.levels_of(group);
    grid.levels.insert(grid.levels.end(), levels.begin(), levels.end());
  }
  std::sort(grid.levels.begin(), grid.levels.end());
  grid.levels.erase(std::unique(grid.levels.begin(), grid.levels.end()), grid.levels.end());
  return grid;
}

}  // namespace qs::analysis
