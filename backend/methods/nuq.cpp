#include "backend/methods/nuq.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>

#include "backend/types/error.h"

namespace qs {
namespace {

/// x with P(standard normal < x) = probability, by bisection of the complementary error function.
double normal_quantile(double probability) {
  double low = -40.0, high = 40.0;
  for (int step = 0; step < 200 && low < high; ++step) {
    const double middle = 0.5 * (low + high);
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < probability ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

/// Cost of making one cluster of consecutive places, in constant time from running sums.
class IntervalCost {
 public:
  explicit IntervalCost(const WeightedPlaces& places)
      : weight_(places.mean.size() + 1), first_(weight_.size()), second_(weight_.size()) {
    // Distances from the middle of the range lose fewer digits than the values themselves.
    origin_ = places.mean.empty() ? 0.0 : 0.5 * (places.mean.front() + places.mean.back());
    for (std::size_t i = 0; i < places.mean.size(); ++i) {
      const double x = places.mean[i] - origin_, w = places.weight[i];
      weight_[i + 1] = weight_[i] + w;
      first_[i + 1] = first_[i] + w * x;
      second_[i + 1] = second_[i] + w * x * x + places.spread[i];
    }
  }
  double operator()(std::int64_t begin, std::int64_t end) const {
    const double w = weight_[end] - weight_[begin], m = first_[end] - first_[begin];
    if (!(w > 0.0)) return 0.0;
    return std::max(0.0, second_[end] - second_[begin] - m * m / w);
  }
  double centroid(std::int64_t begin, std::int64_t end) const {
    return origin_ + (first_[end] - first_[begin]) / (weight_[end] - weight_[begin]);
  }

 private:
  double origin_ = 0.0;
  std::vector<double> weight_, first_, second_;
};

/// best[j] = min over i < j of before[i] + cost(i, j), whose minimising i never falls as j grows.
void fill_layer(const IntervalCost& cost, const std::vector<double>& before, std::int64_t begin, std::int64_t end,
                std::int64_t first, std::int64_t last, std::vector<double>& best, std::vector<std::int64_t>& from) {
  if (begin >= end) return;
  const std::int64_t middle = (begin + end) / 2;
  best[middle] = std::numeric_limits<double>::infinity();
  for (std::int64_t i = first; i <= std::min(last, middle - 1); ++i) {
    const double total = before[i] + cost(i, middle);
    if (total < best[middle]) {
      best[middle] = total;
      from[middle] = i;
    }
  }
  fill_layer(cost, before, begin, middle, first, from[middle], best, from);
  fill_layer(cost, before, middle + 1, end, from[middle], last, best, from);
}

}  // namespace

std::vector<double> normal_float_levels(int bits) {
  const double edge = 0.5 * (1.0 / 32.0 + 1.0 / 30.0);
  const int half = 1 << (bits - 1);
  std::vector<double> levels;
  const double lowest = normal_quantile(edge);
  for (int i = 0; i + 1 < half; ++i) levels.push_back(normal_quantile(edge + (0.5 - edge) * i / (half - 1)) / -lowest);
  levels.push_back(0.0);
  const double highest = normal_quantile(1.0 - edge);
  for (int i = 1; i <= half; ++i) levels.push_back(normal_quantile(0.5 + (0.5 - edge) * i / half) / highest);
  return levels;
}

std::vector<double> uniform_levels(int bits) {
  const int last = (1 << bits) - 1;
  std::vector<double> levels;
  for (int i = 0; i <= last; ++i) levels.push_back(2.0 * i / last - 1.0);
  return levels;
}

double percentile_of_sorted(std::span<const double> sorted, double fraction) {
  const double position = fraction * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(std::floor(position));
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (position - std::floor(position));
}

Clusters weighted_kmeans(const WeightedPlaces& all, int clusters) {
  WeightedPlaces places;
  for (std::size_t i = 0; i < all.mean.size(); ++i) {
    if (!(all.weight[i] > 0.0)) continue;
    places.mean.push_back(all.mean[i]);
    places.weight.push_back(all.weight[i]);
    places.spread.push_back(all.spread[i]);
  }
  Clusters result;
  const auto count = static_cast<std::int64_t>(places.mean.size());
  if (count == 0) {
    result.centroids.assign(static_cast<std::size_t>(clusters), 0.0);
    return result;
  }
  const IntervalCost cost(places);
  const auto parts = static_cast<int>(std::min<std::int64_t>(clusters, count));
  std::vector<double> before(static_cast<std::size_t>(count + 1), std::numeric_limits<double>::infinity());
  before[0] = 0.0;
  std::vector<std::vector<std::int64_t>> from;
  for (int part = 0; part < parts; ++part) {
    std::vector<double> best(before.size(), std::numeric_limits<double>::infinity());
    from.emplace_back(before.size(), part);
    fill_layer(cost, before, part + 1, count + 1, part, count, best, from.back());
    before = std::move(best);
  }
  result.objective = before[count];
  for (std::int64_t end = count, part = parts - 1; part >= 0; --part) {
    const std::int64_t begin = from[part][end];
    result.centroids.push_back(cost.centroid(begin, end));
    end = begin;
  }
  std::reverse(result.centroids.begin(), result.centroids.end());
  std::sort(result.centroids.begin(), result.centroids.end());
  result.centroids.resize(static_cast<std::size_t>(clusters), result.centroids.back());
  return result;
}

WeightedPlaces places_of(std::span<const double> points, std::span<const double> weights) {
  std::vector<std::size_t> order(points.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  for (const std::size_t i : order) {
    if (std::isfinite(points[i]) && std::isfinite(weights[i]) && weights[i] >= 0.0) continue;
    throw Error(ErrorCode::InvalidArgument,
                "Point " + std::to_string(i) + " of the clustering is " + std::to_string(points[i]) + " with weight " +
                    std::to_string(weights[i]) + "; finite points and weights of at least 0 were expected.");
  }
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return points[a] < points[b]; });
  WeightedPlaces places;
  for (const std::size_t i : order) {
    places.mean.push_back(points[i]);
    places.weight.push_back(weights[i]);
    places.spread.push_back(0.0);
  }
  return places;
}

}  // namespace qs
