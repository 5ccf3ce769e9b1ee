#pragma once

#include <limits>

namespace qs {

struct PlotAxis;

/// From low to high along one axis, linear or logarithmic.
struct PlotRange {
  double low = 0.0, high = 1.0;
  bool log = false;
  double floor = 0.0;  ///< where values that have no logarithm are drawn

  double fraction(double value) const;  ///< 0 at low, 1 at high; not clamped
  double value(double fraction) const;  ///< the inverse
};

/// What the data spans; values that are not finite are left out.
struct PlotExtent {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  double smallestPositive = std::numeric_limits<double>::infinity();
  void add(double value);
};

/// The axis's own limits where it has them, else the data's: whole decades when logarithmic, with a margin when
/// `padded`.
PlotRange plotRange(const PlotAxis& axis, PlotExtent extent, bool padded);

/// Limits of a logarithmic axis at 1, 2 or 5 times a power of ten instead of at whole decades, with at least one power
/// of ten between them.
void fitLogAxis(PlotAxis& axis, const PlotExtent& extent);

/// 1, 2 or 5 times a power of ten, so that about `wanted` steps fill the span.
double plotStep(double span, int wanted);

}  // namespace qs
