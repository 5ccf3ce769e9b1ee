#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/types/tensor_view.h"

namespace qs::analysis {

/// Each value pools `factor` x `factor` cells of the base. At factor 1 the three share the same data.
struct PyramidLevel {
  std::int64_t factor = 1;
  TensorView min, max, mean;  ///< f32 [ceil(rows / factor), ceil(cols / factor)]
};

/// A plane with its coarser levels. A NaN in a cell makes every cell above it NaN, so that no level hides one.
struct TilePyramid {
  std::int64_t rows = 0, cols = 0;   ///< of the base
  std::vector<PyramidLevel> levels;  ///< ascending factor; the first has factor 1 unless only coarse levels are known
  bool exact() const { return !levels.empty() && levels.front().factor == 1; }
  /// The base value. @return NaN when outside or when the base is not there
  float at(std::int64_t row, std::int64_t col) const;
};

/// Exact cells of a part of a plane of which only coarse levels are at hand.
struct ExactTile {
  std::int64_t row = 0, col = 0;  ///< where its first cell lies in the plane
  TilePyramid plane;
  bool covers(double left, double top, double right, double bottom) const;  ///< in cells of the whole plane
  float at(std::int64_t row_of_plane, std::int64_t col_of_plane) const;     ///< NaN when outside
};

/// @param plane       f32 [rows, cols]
/// @param min_extent  no level whose longer side would be shorter than this
TilePyramid build_pyramid(const TensorView& plane, std::int64_t min_extent = 128);

/// The level to draw from when one pixel covers so many base cells: coarse enough to be fast, never coarser than twice
/// the finer of the two directions.
const PyramidLevel& pick_level(const TilePyramid& pyramid, double cells_per_pixel_x, double cells_per_pixel_y);

/// Range and odd values of the finest level.
struct PlaneSummary {
  double low = 0.0, high = 0.0;                        ///< of the finite values
  double low_positive = 0.0;                           ///< smallest value above 0; 0 when there is none
  double low_percentile = 0.0, high_percentile = 0.0;  ///< at 0.1 and 99.9 %, from at most 200,000 evenly spaced values
  std::int64_t nan = 0, infinite = 0, zero = 0;
  std::int64_t high_row = -1, high_col = -1;  ///< where the largest magnitude lies
};
PlaneSummary summarize(const TilePyramid& pyramid);

enum class Combine { Difference, Ratio };
/// a - b or a / b cell by cell. Levels with more than `max_cells` cells are left out: the result is then coarse only,
/// made of the levels' means. @throws Error InvalidArgument when the shapes differ
TilePyramid combine(const TilePyramid& a, const TilePyramid& b, Combine operation, std::int64_t max_cells = 1 << 23);

/// The levels of a pooled plane as the coarse levels of a plane of rows x cols cells.
/// @param factor  cells of the plane that one value of `pooled` stands for, in each direction
TilePyramid coarse_plane(const TensorView& pooled, std::int64_t factor, std::int64_t rows, std::int64_t cols);

}  // namespace qs::analysis
