#pragma once

#include <cstdint>
#include <vector>

namespace qs {

/// Clusters of points in Euclidean distance.
struct Clusters {
  std::vector<std::int32_t> of_point;  ///< [points] cluster of each
  std::vector<double> centres;         ///< [clusters][features]
  double inertia = 0.0;                ///< sum of squared distances to the own centre
};

/// Lloyd's k-means from k-means++ starts (each new centre the best of a few draws), the restart of lowest inertia.
/// Deterministic given the seed, on every machine. Clusters are empty only when there are fewer distinct points.
/// @param points  [count][features], finite
Clusters k_means(const std::vector<double>& points, std::int64_t features, std::int64_t clusters, int restarts,
                 std::uint64_t seed);

}  // namespace qs
