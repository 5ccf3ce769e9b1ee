#pragma once

#include <span>
#include <vector>

namespace qs::analysis {

struct ParetoPoint {
  double cost = 0.0;  ///< effective bits or bytes; less is better
  double loss = 0.0;  ///< perplexity, KL; less is better
};

/// Indices of the points that no other point beats in both, by ascending cost. Points with NaN are left out; of equal
/// points the first is kept.
std::vector<int> pareto_front(std::span<const ParetoPoint> points);

}  // namespace qs::analysis
