#pragma once

#include "analysis/tile_pyramid.h"

namespace qs::analysis {

enum class ScaleKind { Linear, Log10, SymLog };

/// How values become positions 0..1 in a colour map or on an axis. SymLog is linear within ±linear_width and
/// logarithmic outside. Log10 puts values <= 0 at position 0.
struct ColorScale {
  ScaleKind kind = ScaleKind::Linear;
  double low = 0.0, high = 1.0;
  double linear_width = 1e-3;
  bool is_signed = false;  ///< a diverging map with zero in its middle; low = -high
  bool operator==(const ColorScale&) const = default;

  double position(double value) const;  ///< clamped to 0..1; NaN for NaN
  double value(double position) const;  ///< the inverse
};

/// How the range is chosen.
enum class RangeMode { Full, Percentile, Manual };

/// The scale of a plane. A range without width is widened; Log10 starts at the smallest value above 0, at most
/// `decades` below the top.
ColorScale fit_scale(const PlaneSummary& summary, ScaleKind kind, RangeMode range, bool is_signed,
                     double decades = 6.0);

/// The smallest scale that holds both: linked A and B.
ColorScale united(const ColorScale& a, const ColorScale& b);

}  // namespace qs::analysis
