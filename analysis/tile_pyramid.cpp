#include "analysis/tile_pyramid.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/types/error.h"

namespace qs::analysis {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

/// Pools 2 x 2 cells; `count_*` are base cells that the last row and column of `from` stand for.
PyramidLevel coarser(const PyramidLevel& from, std::int64_t base_rows, std::int64_t base_cols) {
  const std::int64_t rows = from.mean.shape[0], cols = from.mean.shape[1];
  const std::int64_t out_rows = (rows + 1) / 2, out_cols = (cols + 1) / 2;
  const auto size = static_cast<std::size_t>(out_rows * out_cols);
  std::vector<float> low(size), high(size), mean(size);
  const auto extent = [&](std::int64_t index, std::int64_t base) {
    return static_cast<double>(std::min(from.factor, base - index * from.factor));
  };
  for (std::int64_t r = 0; r < out_rows; ++r) {
    for (std::int64_t c = 0; c < out_cols; ++c) {
      float smallest = std::numeric_limits<float>::infinity(), largest = -smallest;
      double sum = 0.0, weight = 0.0;
      for (std::int64_t y = 2 * r; y < std::min(rows, 2 * r + 2); ++y) {
        const double height = extent(y, base_rows);
        for (std::int64_t x = 2 * c; x < std::min(cols, 2 * c + 2); ++x) {
          const std::int64_t i = y * cols + x;
          const double area = height * extent(x, base_cols);
          const float a = from.min.data[i], b = from.max.data[i];
          smallest = (a < smallest || a != a) ? a : smallest;
          largest = (b > largest || b != b) ? b : largest;
          sum += area * from.mean.data[i];
          weight += area;
        }
      }
      const auto o = static_cast<std::size_t>(r * out_cols + c);
      low[o] = smallest;
      high[o] = largest;
      mean[o] = static_cast<float>(sum / weight);
    }
  }
  PyramidLevel level;
  level.factor = from.factor * 2;
  level.min = TensorView::own(std::move(low), {out_rows, out_cols});
  level.max = TensorView::own(std::move(high), {out_rows, out_cols});
  level.mean = TensorView::own(std::move(mean), {out_rows, out_cols});
  return level;
}

}  // namespace

float TilePyramid::at(std::int64_t row, std::int64_t col) const {
  if (!exact() || row < 0 || col < 0 || row >= rows || col >= cols) return kNaN;
  return levels.front().mean.data[row * cols + col];
}

bool ExactTile::covers(double left, double top, double right, double bottom) const {
  constexpr double kSlack = 1e-6;
  return plane.exact() && left >= static_cast<double>(col) - kSlack && top >= static_cast<double>(row) - kSlack &&
         right <= static_cast<double>(col + plane.cols) + kSlack &&
         bottom <= static_cast<double>(row + plane.rows) + kSlack;
}

float ExactTile::at(std::int64_t row_of_plane, std::int64_t col_of_plane) const {
  return plane.at(row_of_plane - row, col_of_plane - col);
}

TilePyramid coarse_plane(const TensorView& pooled, std::int64_t factor, std::int64_t rows, std::int64_t cols) {
  TilePyramid pyramid = build_pyramid(pooled);
  pyramid.rows = rows;
  pyramid.cols = cols;
  for (PyramidLevel& level : pyramid.levels) level.factor *= factor;
  return pyramid;
}

TilePyramid build_pyramid(const TensorView& plane, std::int64_t min_extent) {
  if (plane.shape.size() != 2)
    throw Error(ErrorCode::InvalidArgument, "A pyramid needs a plane [rows, cols]; this tensor has " +
                                                std::to_string(plane.shape.size()) + " axes.");
  TilePyramid pyramid;
  pyramid.rows = plane.shape[0];
  pyramid.cols = plane.shape[1];
  if (plane.empty()) return pyramid;
  pyramid.levels.push_back({1, plane, plane, plane});
  while (true) {
    const auto& shape = pyramid.levels.back().mean.shape;
    if ((std::max(shape[0], shape[1]) + 1) / 2 < min_extent || std::max(shape[0], shape[1]) < 2) break;
    pyramid.levels.push_back(coarser(pyramid.levels.back(), pyramid.rows, pyramid.cols));
  }
  return pyramid;
}

const PyramidLevel& pick_level(const TilePyramid& pyramid, double cells_per_pixel_x, double cells_per_pixel_y) {
  const double finer = std::min(cells_per_pixel_x, cells_per_pixel_y);
  const double wanted = std::min(2.0 * finer, std::sqrt(std::max(1.0, cells_per_pixel_x * cells_per_pixel_y)));
  const PyramidLevel* best = &pyramid.levels.front();
  for (const PyramidLevel& level : pyramid.levels)
    if (finer > 1.0 && static_cast<double>(level.factor) <= wanted) best = &level;
  return *best;
}

PlaneSummary summarize(const TilePyramid& pyramid) {
  PlaneSummary summary;
  if (pyramid.levels.empty()) return summary;
  const PyramidLevel& level = pyramid.levels.front();
  const auto count = static_cast<std::size_t>(level.mean.size());
  const std::size_t stride = std::max<std::size_t>(1, count / 200000);
  double low = std::numeric_limits<double>::infinity(), high = -low, positive = low, extreme = -1.0;
  std::vector<float> sample;
  const std::int64_t cols = level.mean.shape[1];
  for (std::size_t i = 0; i < count; ++i) {
    const float smallest = level.min.data[i], largest = level.max.data[i];
    if (largest != largest) {
      ++summary.nan;
      continue;
    }
    if (std::isinf(smallest) || std::isinf(largest)) {
      ++summary.infinite;
      continue;
    }
    if (smallest == 0.0f && largest == 0.0f) ++summary.zero;
    low = std::min<double>(low, smallest);
    high = std::max<double>(high, largest);
    if (smallest > 0) positive = std::min<double>(positive, smallest);
    const double magnitude = std::max(std::fabs(smallest), std::fabs(largest));
    if (magnitude > extreme) {
      extreme = magnitude;
      summary.high_row = static_cast<std::int64_t>(i) / cols * level.factor;
      summary.high_col = static_cast<std::int64_t>(i) % cols * level.factor;
    }
    if (i % stride == 0) sample.push_back(level.mean.data[i]);
  }
  if (low > high) return summary;
  summary.low = low;
  summary.high = high;
  summary.low_positive = std::isfinite(positive) ? positive : 0.0;
  summary.low_percentile = low;
  summary.high_percentile = high;
  if (sample.size() > 1) {
    const auto pick = [&](double q) {
      const auto at = static_cast<std::ptrdiff_t>(std::llround(q * static_cast<double>(sample.size() - 1)));
      std::nth_element(sample.begin(), sample.begin() + at, sample.end());
      return static_cast<double>(sample[static_cast<std::size_t>(at)]);
    };
    summary.low_percentile = pick(0.001);
    summary.high_percentile = pick(0.999);
  }
  return summary;
}

TilePyramid combine(const TilePyramid& a, const TilePyramid& b, Combine operation, std::int64_t max_cells) {
  if (a.rows != b.rows || a.cols != b.cols)
    throw Error(ErrorCode::InvalidArgument, "A and B cannot be compared cell by cell: A has " + std::to_string(a.rows) +
                                                " x " + std::to_string(a.cols) + " cells, B has " +
                                                std::to_string(b.rows) + " x " + std::to_string(b.cols) + ".");
  TilePyramid result;
  result.rows = a.rows;
  result.cols = a.cols;
  const auto joined = [&](const PyramidLevel& x, const PyramidLevel& y) {
    std::vector<float> values(static_cast<std::size_t>(x.mean.size()));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = operation == Combine::Difference ? x.mean.data[i] - y.mean.data[i] : x.mean.data[i] / y.mean.data[i];
    return TensorView::own(std::move(values), x.mean.shape);
  };
  for (const PyramidLevel& x : a.levels) {
    if (x.mean.size() > max_cells) continue;
    const auto y =
        std::find_if(b.levels.begin(), b.levels.end(), [&](const PyramidLevel& l) { return l.factor == x.factor; });
    if (y == b.levels.end()) continue;
    const TensorView plane = joined(x, *y);
    if (x.factor == 1) return build_pyramid(plane);
    result.levels.push_back({x.factor, plane, plane, plane});
  }
  return result;
}

}  // namespace qs::analysis
