#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qs::analysis {

/// Counts of equal bins over [low, high]; the last bin includes `high`.
struct Histogram {
  double low = 0.0, high = 0.0;
  std::vector<std::int64_t> counts;
  std::int64_t below = 0, above = 0;  ///< finite values outside the range
  std::int64_t nan = 0, infinite = 0, zero = 0;
  std::int64_t total = 0;  ///< all values, whatever they are
  double bin_width() const { return counts.empty() ? 0.0 : (high - low) / static_cast<double>(counts.size()); }
};

/// Over the range of the finite values. All-equal values give a range of width 1 around them.
Histogram histogram(std::span<const float> values, int bins);
/// @throws Error InvalidArgument when bins < 1 or the range is empty or not finite
Histogram histogram(std::span<const float> values, int bins, double low, double high);

}  // namespace qs::analysis
