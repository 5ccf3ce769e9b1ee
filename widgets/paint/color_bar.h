#pragma once

#include <QRectF>
#include <QString>

#include "analysis/color_scale.h"
#include "widgets/paint/color_map.h"

class QPainter;

namespace qs {

struct FigureStyle;

/// A vertical bar of the map with the scale's ticks at its right and the title along it.
void paint_color_bar(QPainter& painter, const FigureStyle& style, const QRectF& bar, const analysis::ColorScale& scale,
                     MapName map, const QString& title);
/// Width that bar, ticks and title need.
double color_bar_width(const FigureStyle& style, const analysis::ColorScale& scale, bool with_title);

}  // namespace qs
