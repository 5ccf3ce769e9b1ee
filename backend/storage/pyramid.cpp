#include "backend/storage/pyramid.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

namespace qs {
namespace {

constexpr std::int64_t kCoarsestTiles = 128, kLargestFactor = 256;

/// [heads, rows, columns] -> [heads, ceil(rows / 2), 2, ceil(columns / 2), 2], what is missing filled up.
at::Tensor quads(const at::Tensor& x, double filler) {
  const std::int64_t rows = (x.size(1) + 1) / 2, columns = (x.size(2) + 1) / 2;
  return at::constant_pad_nd(x, {0, columns * 2 - x.size(2), 0, rows * 2 - x.size(1)}, filler)
      .view({x.size(0), rows, 2, columns, 2});
}

at::Tensor cells_along(std::int64_t extent, std::int64_t factor) {
  const at::Tensor begin = at::arange((extent + factor - 1) / factor, at::kDouble) * static_cast<double>(factor);
  return (static_cast<double>(extent) - begin).clamp_max(static_cast<double>(factor));
}

}  // namespace

std::vector<std::int64_t> pyramid_factors(std::int64_t tokens, std::int64_t channels) {
  std::vector<std::int64_t> factors = {2};
  const std::int64_t side = std::max(tokens, channels);
  while (factors.back() < kLargestFactor && (side + factors.back() - 1) / factors.back() > kCoarsestTiles)
    factors.push_back(factors.back() * 2);
  return factors;
}

std::vector<PyramidLevel> build_pyramid(const at::Tensor& x, const std::vector<std::int64_t>& factors) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  at::Tensor low = x.to(at::kFloat), high = low, sum = low;
  std::vector<PyramidLevel> levels;
  for (const std::int64_t factor : factors) {
    low = quads(low, kInfinity).amin({2, 4});
    high = quads(high, -kInfinity).amax({2, 4});
    sum = quads(sum, 0.0).sum({2, 4});
    const at::Tensor cells = cells_along(x.size(1), factor).unsqueeze(1) * cells_along(x.size(2), factor).unsqueeze(0);
    levels.push_back({factor, low, high, (sum / cells).to(at::kFloat)});
  }
  return levels;
}

}  // namespace qs
