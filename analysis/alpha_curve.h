#pragma once

#include <vector>

#include "backend/types/eval_result.h"

namespace qs::analysis {

/// What one line of an alpha sweep says.
struct AlphaSummary {
  int best = -1;                           ///< index of the finished point with the lowest value; -1: none finished
  std::vector<bool> tied;                  ///< by point: not distinguishable from the best
  double tied_low = 0.0, tied_high = 0.0;  ///< alphas of the contiguous run of tied points around the best
  bool at_edge = false;                    ///< the best is the first or last finished point of at least three
};

/// A point is tied with the best when the 95 % interval of its paired per-window difference to the best includes 0;
/// without windows only the best itself is.
AlphaSummary summarize_alpha(const AlphaScheme& scheme);

/// Local error as rows of layers: [layers][points], NaN where a point is not finished. pair -1 adds all pairs of a
/// layer.
std::vector<std::vector<double>> layer_alpha_map(const AlphaScheme& scheme, std::int64_t layers, std::int64_t pairs,
                                                 std::int64_t pair);
/// Index of the lowest finite value of each row; -1 when there is none.
std::vector<int> argmin_path(const std::vector<std::vector<double>>& map);

/// New alphas that halve the grid around the best point: midpoints to its neighbours, rounded to 0.001, none that is
/// there.
std::vector<double> refinement(const AlphaScheme& scheme);

}  // namespace qs::analysis
