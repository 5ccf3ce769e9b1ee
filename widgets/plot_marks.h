#pragma once

#include <QPointF>
#include <QRectF>
#include <QVector>

#include "widgets/plot_view.h"

class QFontMetricsF;
class QPainter;
class QPolygonF;

namespace qs {

void paintMarker(QPainter& painter, const QPointF& at, PlotPoint::Marker marker, const QColor& color,
                 const FigureStyle& style);

/// Beside the point where no other label is; left out when all places are taken (the note is still in the tool tip).
void paintLabel(QPainter& painter, const QRectF& area, const QPointF& at, const QString& text,
                const QFontMetricsF& metrics, const FigureStyle& style, QVector<QRectF>& taken);

/// A place for the label of a vertical rule at `at`: the highest one beside it that neither a line nor a taken box
/// touches; failing that, the highest that no taken box touches.
/// @param top  distance of the highest place from the top of the area
QRectF freeLabelBox(const QRectF& area, double at, const QSizeF& size, double top, const QVector<QPolygonF>& lines,
                    const QVector<QRectF>& taken);

}  // namespace qs
