#include "analysis/histogram.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/types/error.h"

namespace qs::analysis {

Histogram histogram(std::span<const float> values, int bins) {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const float v : values) {
    if (!std::isfinite(v)) continue;
    low = std::min<double>(low, v);
    high = std::max<double>(high, v);
  }
  if (low > high) low = 0.0, high = 1.0;
  if (low == high) low -= 0.5, high += 0.5;
  return histogram(values, bins, low, high);
}

Histogram histogram(std::span<const float> values, int bins, double low, double high) {
  if (bins < 1)
    throw Error(ErrorCode::InvalidArgument,
                "A histogram needs at least 1 bin; " + std::to_string(bins) + " were asked for.");
  if (!(low < high) || !std::isfinite(low) || !std::isfinite(high))
    throw Error(ErrorCode::InvalidArgument, "A histogram needs a finite range with low < high; found " +
                                                std::to_string(low) + " to " + std::to_string(high) + ".");
  Histogram result;
  result.low = low;
  result.high = high;
  result.total = static_cast<std::int64_t>(values.size());
  result.counts.assign(static_cast<std::size_t>(bins), 0);
  const double per_value = bins / (high - low);
  for (const float v : values) {
    if (v != v) {
      ++result.nan;
    } else if (std::isinf(v)) {
      ++result.infinite;
    } else {
      if (v == 0.0f) ++result.zero;
      if (v < low) {
        ++result.below;
      } else if (v > high) {
        ++result.above;
      } else {
        const auto bin = static_cast<std::int64_t>((v - low) * per_value);
        ++result.counts[static_cast<std::size_t>(std::min<std::int64_t>(bin, bins - 1))];
      }
    }
  }
  return result;
}

}  // namespace qs::analysis
