#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qs {

// Datatypes of normalised values (KVQuant, arXiv:2401.18079; KV specification 8.4 and 8.5): tables of 2^bits ascending
// levels, and how they are fitted.

/// NormalFloat signposts: quantiles of the normal distribution, each half scaled onto [-1, 0] and [0, 1].
std::vector<double> normal_float_levels(int bits);
/// 2^bits equally spaced levels from -1 to 1.
std::vector<double> uniform_levels(int bits);

/// Linear interpolation between order statistics. @param sorted  ascending, not empty; fraction 0 to 1
double percentile_of_sorted(std::span<const double> sorted, double fraction);

/// Points of a line in few places: each place has the summed weight of its points, their weighted mean and their
/// weighted sum of squared distances from it.
struct WeightedPlaces {
  std::vector<double> mean, weight, spread;
};

struct Clusters {
  std::vector<double> centroids;  ///< ascending; the last repeats when there are fewer places than clusters
  double objective = 0.0;         ///< sum of weight * (point - its centroid)^2
};

/// Exact weighted k-means of a line by dynamic programming; the divide-and-conquer form takes
/// clusters * places * log(places) steps. Places of weight 0 do not count.
/// @param places  means ascending
Clusters weighted_kmeans(const WeightedPlaces& places, int clusters);

/// Every point a place of its own. @throws Error InvalidArgument for NaN, infinity or a negative weight
WeightedPlaces places_of(std::span<const double> points, std::span<const double> weights);

}  // namespace qs
