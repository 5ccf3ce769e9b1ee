#include "analysis/pareto.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qs::analysis {

std::vector<int> pareto_front(std::span<const ParetoPoint> points) {
  std::vector<int> order;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (std::isfinite(points[i].cost) && std::isfinite(points[i].loss)) order.push_back(static_cast<int>(i));
  }
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    const ParetoPoint &p = points[static_cast<std::size_t>(a)], &q = points[static_cast<std::size_t>(b)];
    return p.cost != q.cost ? p.cost < q.cost : p.loss < q.loss;
  });
  std::vector<int> front;
  double best = std::numeric_limits<double>::infinity();
  for (const int i : order) {
    const double loss = points[static_cast<std::size_t>(i)].loss;
    if (loss >= best) continue;
    best = loss;
    front.push_back(i);
  }
  return front;
}

}  // namespace qs::analysis
