#include "backend/methods/nuq_matrix.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace qs {
namespace {

at::Tensor row_of(const std::vector<float>& values) { return at::tensor(values, at::kFloat); }

/// Linear interpolation between order statistics of every row, in f32. @param sorted  [rows, C] ascending
at::Tensor row_quantile(const at::Tensor& sorted, double fraction) {
  const double position = fraction * static_cast<double>(sorted.size(1) - 1);
  const auto below = static_cast<std::int64_t>(std::floor(position));
  const std::int64_t above = std::min(below + 1, sorted.size(1) - 1);
  const at::Tensor low = sorted.select(1, below);
  return low + (sorted.select(1, above) - low) * (position - std::floor(position));
}

/// Of the elements of each row that `eligible` names, the `most` largest (smallest) by `rank`, the first on ties.
at::Tensor strongest(const at::Tensor& rank, const at::Tensor& eligible, std::int64_t most, bool largest) {
  const double never = largest ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity();
  const at::Tensor order = std::get<1>(at::sort(rank.masked_fill(eligible.logical_not(), never), true, 1, largest));
  const at::Tensor first = order.narrow(1, 0, std::min(most, rank.size(1)));
  return at::zeros_like(eligible).scatter_(1, first, true).logical_and_(eligible);
}

}  // namespace

at::Tensor TokenMatrix::normalised() const {
  const at::Tensor y = (x - middle) / half;
  return at::where(half == 0.0, at::zeros_like(y), y);
}

TokenMatrix key_matrix(const at::Tensor& x, const NuqCoding& coding, const KvquantSettings& settings) {
  TokenMatrix m{x, at::zeros(x.sizes(), at::kBool), row_of(coding.middle).unsqueeze(0),
                row_of(coding.half).unsqueeze(0)};
  if (settings.outliers == 0.0) return m;
  at::Tensor above = x > row_of(coding.upper), below = x < row_of(coding.lower);
  if (const std::int64_t cap = settings.cap(x.size(1)); cap > 0) {
    const at::Tensor y = (x - m.middle) / m.half;
    above = strongest(y, above, cap, true);
    below = strongest(y, below, cap, false);
  }
  m.outlier = above.logical_or(below);
  return m;
}

TokenMatrix value_matrix(const at::Tensor& x, const KvquantSettings& settings) {
  TokenMatrix m{x, at::zeros(x.sizes(), at::kBool), {}, {}};
  at::Tensor inliers = x;
  if (settings.outliers > 0.0) {
    const at::Tensor sorted = std::get<0>(at::sort(x, 1));
    const at::Tensor above = x >= row_quantile(sorted, settings.upper_fraction()).unsqueeze(1);
    const at::Tensor below = x <= row_quantile(sorted, 1.0 - settings.upper_fraction()).unsqueeze(1);
    const std::int64_t most = settings.value_outliers_per_side(x.size(1));
    m.outlier = strongest(x, above, most, true).logical_or(strongest(x, below, most, false));
    inliers = at::where(m.outlier, sorted.select(1, (x.size(1) - 1) / 2).unsqueeze(1), x);
  }
  const at::Tensor upper = inliers.amax({1}, true), lower = inliers.amin({1}, true);
  m.middle = (upper + lower) / 2.0;
  m.half = (upper - lower) / 2.0;
  return m;
}

}  // namespace qs
