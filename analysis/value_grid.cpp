#include "analysis/value_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>

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
  if (static_cast<int>(seen.size()) > max_levels) seen.resize(static_cast<std::size_t>(max_levels));
  grid.levels = std::move(seen);
  return grid;
}

}  // namespace qs::analysis
