#include "backend/methods/k_means.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

namespace qs {
namespace {

constexpr int kMaxRounds = 300;

class Search {
 public:
  Search(const std::vector<double>& points, std::int64_t features, std::int64_t clusters, std::mt19937_64& generator)
      : points_(points),
        features_(features),
        count_(static_cast<std::int64_t>(points.size()) / features),
        clusters_(clusters),
        generator_(generator) {}

  Clusters run() {
    start();
    for (int round = 0; round < kMaxRounds; ++round) {
      if (!assign()) break;
      centre();
    }
    return std::move(found_);
  }

 private:
  double uniform() { return static_cast<double>(generator_() >> 11) * 0x1.0p-53; }

  double distance(const double* a, const double* b) const {
    double sum = 0.0;
    for (std::int64_t f = 0; f < features_; ++f) sum += (a[f] - b[f]) * (a[f] - b[f]);
    return sum;
  }
  const double* point(std::int64_t i) const { return points_.data() + i * features_; }
  double* centre_of(std::int64_t cluster) { return found_.centres.data() + cluster * features_; }

  /// A point drawn in proportion to its squared distance to the nearest centre so far.
  std::int64_t draw(const std::vector<double>& nearest, double total) {
    double left = uniform() * total;
    for (std::int64_t i = 0; i < count_; ++i) {
      left -= nearest[i];
      if (left < 0.0) return i;
    }
    return count_ - 1;
  }

  void start() {
    found_.centres.assign(static_cast<std::size_t>(clusters_ * features_), 0.0);
    found_.of_point.assign(static_cast<std::size_t>(count_), -1);
    const int draws = 2 + static_cast<int>(std::log(static_cast<double>(std::max<std::int64_t>(1, clusters_))));
    const auto first = static_cast<std::int64_t>(uniform() * static_cast<double>(count_));
    std::copy_n(point(first), features_, centre_of(0));
    std::vector<double> nearest(static_cast<std::size_t>(count_));
    for (std::int64_t i = 0; i < count_; ++i) nearest[i] = distance(point(i), centre_of(0));
    for (std::int64_t cluster = 1; cluster < clusters_; ++cluster) {
      double total = 0.0;
      for (const double d : nearest) total += d;
      std::vector<double> best, trial(nearest.size());
      double best_total = std::numeric_limits<double>::infinity();
      std::int64_t chosen = 0;
      for (int k = 0; k < draws; ++k) {
        const std::int64_t candidate = draw(nearest, total);
        double sum = 0.0;
        for (std::int64_t i = 0; i < count_; ++i) {
          trial[i] = std::min(nearest[i], distance(point(i), point(candidate)));
          sum += trial[i];
        }
        if (sum < best_total) {
          best_total = sum;
          best = trial;
          chosen = candidate;
        }
      }
      std::copy_n(point(chosen), features_, centre_of(cluster));
      nearest = std::move(best);
    }
  }

  /// Gives every point to its nearest centre, the lowest of equals. @return whether anything changed
  bool assign() {
    bool changed = false;
    found_.inertia = 0.0;
    for (std::int64_t i = 0; i < count_; ++i) {
      std::int32_t nearest = 0;
      double least = std::numeric_limits<double>::infinity();
      for (std::int64_t cluster = 0; cluster < clusters_; ++cluster) {
        const double d = distance(point(i), centre_of(cluster));
        if (d < least) {
          least = d;
          nearest = static_cast<std::int32_t>(cluster);
        }
      }
      changed = changed || found_.of_point[i] != nearest;
      found_.of_point[i] = nearest;
      found_.inertia += least;
    }
    return changed;
  }

  void centre() {
    std::vector<std::int64_t> members(static_cast<std::size_t>(clusters_), 0);
    std::vector<double> sums(found_.centres.size(), 0.0);
    for (std::int64_t i = 0; i < count_; ++i) {
      const std::int64_t cluster = found_.of_point[i];
      ++members[cluster];
      for (std::int64_t f = 0; f < features_; ++f) sums[cluster * features_ + f] += point(i)[f];
    }
    for (std::int64_t cluster = 0; cluster < clusters_; ++cluster) {
      if (members[cluster] == 0) continue;
      for (std::int64_t f = 0; f < features_; ++f)
        centre_of(cluster)[f] = sums[cluster * features_ + f] / static_cast<double>(members[cluster]);
    }
    for (std::int64_t cluster = 0; cluster < clusters_; ++cluster) {
      if (members[cluster] == 0) move_to_farthest(cluster, members);
    }
  }

  /// An empty cluster takes over the point that lies farthest from its centre.
  void move_to_farthest(std::int64_t cluster, std::vector<std::int64_t>& members) {
    std::int64_t farthest = -1;
    double most = 0.0;
    for (std::int64_t i = 0; i < count_; ++i) {
      const double d = distance(point(i), centre_of(found_.of_point[i]));
      if (d > most && members[found_.of_point[i]] > 1) {
        most = d;
        farthest = i;
      }
    }
    if (farthest < 0) return;
    --members[found_.of_point[farthest]];
    ++members[cluster];
    found_.of_point[farthest] = static_cast<std::int32_t>(cluster);
    std::copy_n(point(farthest), features_, centre_of(cluster));
  }

  const std::vector<double>& points_;
  std::int64_t features_, count_, clusters_;
  std::mt19937_64& generator_;
  Clusters found_;
};

}  // namespace

Clusters k_means(const std::vector<double>& points, std::int64_t features, std::int64_t clusters, int restarts,
                 std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  Clusters best;
  for (int i = 0; i < restarts; ++i) {
    Clusters found = Search(points, features, clusters, generator).run();
    if (i == 0 || found.inertia < best.inertia) best = std::move(found);
  }
  return best;
}

}  // namespace qs
