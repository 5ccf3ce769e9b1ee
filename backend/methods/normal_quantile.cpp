#include "backend/methods/normal_quantile.h"

#include <cmath>
#include <limits>

namespace qs {

double normal_quantile(double probability) {
  if (!(probability > 0.0)) return -std::numeric_limits<double>::infinity();
  if (probability >= 1.0) return std::numeric_limits<double>::infinity();
  if (probability > 0.5) return -normal_quantile(1.0 - probability);
  // A start good to 3e-3 (Abramowitz and Stegun, 26.2.22), then Halley steps on the distribution function.
  const double t = std::sqrt(-2.0 * std::log(probability));
  double x = (2.30753 + 0.27061 * t) / (1.0 + t * (0.99229 + t * 0.04481)) - t;
  constexpr double kRootTwoPi = 2.5066282746310005024;
  for (int step = 0; step < 3; ++step) {
    const double error = 0.5 * std::erfc(-x / std::sqrt(2.0)) - probability;
    const double newton = error * kRootTwoPi * std::exp(0.5 * x * x);
    x -= newton / (1.0 + 0.5 * x * newton);
  }
  return x;
}

}  // namespace qs
