#pragma once

#include <QRectF>
#include <QString>
#include <vector>

#include "analysis/color_scale.h"

class QPainter;

namespace qs {

struct FigureStyle;

/// Positions of round numbers (1, 2 or 5 times a power of ten) within [low, high], about `wanted` of them.
std::vector<double> nice_ticks(double low, double high, int wanted);
/// Whole multiples for an axis of indices: never a fraction.
std::vector<double> index_ticks(double low, double high, int wanted);
/// Ticks of a scale: powers of ten when logarithmic, round numbers otherwise.
std::vector<double> scale_ticks(const analysis::ColorScale& scale, int wanted);

/// As short as it can be: "0.05", "1.2e-06", "41.2". Always with a decimal point.
QString number_text(double value, int digits = 4);

struct AxisTick {
  double at = 0.0;  ///< device coordinate along the axis
  QString text;
};

/// Ticks and labels below (or above) the edge at y from left to right; labels that would overlap are left out.
void paint_horizontal_axis(QPainter& painter, const FigureStyle& style, double left, double right, double y,
                           const std::vector<AxisTick>& ticks, const QString& title, bool above = false);
/// Ticks and labels left of (or right of) the edge at x; the title is turned by 90 degrees at `title_x`.
void paint_vertical_axis(QPainter& painter, const FigureStyle& style, double top, double bottom, double x,
                         const std::vector<AxisTick>& ticks, const QString& title, double title_x, bool right = false);

}  // namespace qs
