#include "analysis/alpha_curve.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/metrics.h"

namespace qs::analysis {

namespace {

bool finished(const AlphaPoint& point) {
  return (point.state == AlphaPoint::State::Done || point.state == AlphaPoint::State::Cached) &&
         std::isfinite(point.value);
}

bool is_tied(const AlphaPoint& best, const AlphaPoint& other) {
  if (best.per_window.size() < 2 || best.per_window.size() != other.per_window.size()) return false;
  const PairedDifference difference = paired_difference(best.per_window, other.per_window);
  return difference.low <= 0.0 && difference.high >= 0.0;
}

}  // namespace

AlphaSummary summarize_alpha(const AlphaScheme& scheme) {
  AlphaSummary summary;
  const auto& points = scheme.points;
  summary.tied.assign(points.size(), false);
  std::vector<int> done;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (!finished(points[i])) continue;
    done.push_back(static_cast<int>(i));
    if (summary.best < 0 || points[i].value < points[static_cast<std::size_t>(summary.best)].value)
      summary.best = static_cast<int>(i);
  }
  if (summary.best < 0) return summary;
  const AlphaPoint& best = points[static_cast<std::size_t>(summary.best)];
  for (const int i : done)
    summary.tied[static_cast<std::size_t>(i)] = i == summary.best || is_tied(best, points[static_cast<std::size_t>(i)]);
  const auto at = std::find(done.begin(), done.end(), summary.best);
  auto low = at, high = at;
  while (low != done.begin() && summary.tied[static_cast<std::size_t>(*(low - 1))]) --low;
  while (high + 1 != done.end() && summary.tied[static_cast<std::size_t>(*(high + 1))]) ++high;
  summary.tied_low = points[static_cast<std::size_t>(*low)].alpha;
  summary.tied_high = points[static_cast<std::size_t>(*high)].alpha;
  summary.at_edge = done.size() >= 3 && (at == done.begin() || at + 1 == done.end());
  return summary;
}

std::vector<std::vector<double>> layer_alpha_map(const AlphaScheme& scheme, std::int64_t layers, std::int64_t pairs,
                                                 std::int64_t pair) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<std::vector<double>> map(static_cast<std::size_t>(layers),
                                       std::vector<double>(scheme.points.size(), nan));
  for (std::size_t p = 0; p < scheme.points.size(); ++p) {
    const std::vector<double>& errors = scheme.points[p].layer_mse;
    if (errors.size() != static_cast<std::size_t>(layers * pairs)) continue;
    for (std::int64_t layer = 0; layer < layers; ++layer) {
      double sum = 0.0;
      for (std::int64_t k = 0; k < pairs; ++k) {
        if (pair < 0 || pair == k) sum += errors[static_cast<std::size_t>(layer * pairs + k)];
      }
      map[static_cast<std::size_t>(layer)][p] = sum;
    }
  }
  return map;
}

std::vector<int> argmin_path(const std::vector<std::vector<double>>& map) {
  std::vector<int> path;
  for (const std::vector<double>& row : map) {
    int best = -1;
    for (std::size_t i = 0; i < row.size(); ++i) {
      if (std::isfinite(row[i]) && (best < 0 || row[i] < row[static_cast<std::size_t>(best)]))
        best = static_cast<int>(i);
    }
    path.push_back(best);
  }
  return path;
}

std::vector<double> refinement(const AlphaScheme& scheme) {
  const AlphaSummary summary = summarize_alpha(scheme);
  std::vector<double> added;
  if (summary.best < 0) return added;
  const auto best = static_cast<std::size_t>(summary.best);
  const auto offer = [&](double alpha) {
    alpha = std::round(alpha * 1000.0) / 1000.0;
    if (alpha < 0.0 || alpha > 1.0) return;
    const bool known = std::any_of(scheme.points.begin(), scheme.points.end(),
                                   [&](const AlphaPoint& p) { return std::abs(p.alpha - alpha) < 5e-4; });
    if (!known && std::find(added.begin(), added.end(), alpha) == added.end()) added.push_back(alpha);
  };
  const auto& points = scheme.points;
  const double here = points[best].alpha;
  const double step = best > 0                   ? here - points[best - 1].alpha
                      : best + 1 < points.size() ? points[best + 1].alpha - here
                                                 : 0.05;
  if (best > 0)
    offer(0.5 * (here + points[best - 1].alpha));
  else
    offer(here - step);
  if (best + 1 < points.size())
    offer(0.5 * (here + points[best + 1].alpha));
  else
    offer(here + step);
  std::sort(added.begin(), added.end());
  return added;
}

}  // namespace qs::analysis
