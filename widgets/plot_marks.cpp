#include "widgets/plot_marks.h"

#include <QFontMetricsF>
#include <QPainter>
#include <QPolygonF>
#include <algorithm>
#include <cmath>

namespace qs {

namespace {

/// Whether the line passes through `box`. Its points go from left to right.
bool crosses(const QPolygonF& line, const QRectF& box) {
  for (qsizetype i = 0; i < line.size(); ++i) {
    const QPointF a = line[std::max<qsizetype>(0, i - 1)], b = line[i];
    if (b.x() < box.left() || a.x() > box.right()) continue;
    const auto heightAt = [&](double x) {
      return b.x() - a.x() < 1e-9 ? b.y() : a.y() + (b.y() - a.y()) * (x - a.x()) / (b.x() - a.x());
    };
    const double y1 = heightAt(std::max(a.x(), box.left())), y2 = heightAt(std::min(b.x(), box.right()));
    if (std::max(y1, y2) >= box.top() && std::min(y1, y2) <= box.bottom()) return true;
  }
  return false;
}

}  // namespace

void paintMarker(QPainter& painter, const QPointF& at, PlotPoint::Marker marker, const QColor& color,
                 const FigureStyle& style) {
  const double r = 3.6;
  painter.setPen(QPen(color, style.lineWidth * 1.6));
  painter.setBrush(color);
  switch (marker) {
    case PlotPoint::Marker::None:
      break;
    case PlotPoint::Marker::Filled:
      painter.drawEllipse(at, r, r);
      break;
    case PlotPoint::Marker::Hollow:
      painter.setBrush(style.background);
      painter.drawEllipse(at, r, r);
      break;
    case PlotPoint::Marker::Cross:
      painter.setPen(QPen(style.warning, style.lineWidth * 2.0));
      painter.drawLine(at + QPointF(-r, -r), at + QPointF(r, r));
      painter.drawLine(at + QPointF(-r, r), at + QPointF(r, -r));
      break;
    case PlotPoint::Marker::Ringed:
      painter.drawEllipse(at, r, r);
      painter.setBrush(Qt::NoBrush);
      painter.drawEllipse(at, r * 2.2, r * 2.2);
      break;
    case PlotPoint::Marker::Tick: {
      painter.drawEllipse(at, r, r);
      painter.setPen(QPen(style.background, style.lineWidth * 1.3));
      painter.drawPolyline(QPolygonF({at + QPointF(-1.9, 0.1), at + QPointF(-0.5, 1.6), at + QPointF(2.0, -1.6)}));
      break;
    }
  }
}

void paintLabel(QPainter& painter, const QRectF& area, const QPointF& at, const QString& text,
                const QFontMetricsF& metrics, const FigureStyle& style, QVector<QRectF>& taken) {
  const QString shown = metrics.elidedText(text, Qt::ElideMiddle, area.width() * 0.5);
  const QSizeF size(metrics.horizontalAdvance(shown) + 2, metrics.height());
  const QPointF corners[] = {{7, -size.height()},
                             {7, 2},
                             {-size.width() - 7, -size.height()},
                             {-size.width() - 7, 2},
                             {-size.width() / 2, -size.height() - 8},
                             {-size.width() / 2, 8}};
  for (const QPointF& corner : corners) {
    const QRectF box(at + corner, size);
    if (!area.contains(box)) continue;
    if (std::any_of(taken.begin(), taken.end(), [&](const QRectF& other) { return other.intersects(box); })) continue;
    painter.setPen(style.foreground);
    painter.drawText(box, Qt::AlignCenter, shown);
    taken.append(box);
    return;
  }
}

QRectF freeLabelBox(const QRectF& area, double at, const QSizeF& size, double top, const QVector<QPolygonF>& lines,
                    const QVector<QRectF>& taken) {
  QRectF best;
  for (const bool minding : {true, false}) {  // the lines
    for (double dy = top; dy + size.height() <= area.height(); dy += size.height() * 0.5) {
      for (const double left : {at + 4.0, at - size.width() - 4.0}) {
        const QRectF box(QPointF(left, area.top() + dy), size), wide = box.adjusted(-2, -2, 2, 2);
        if (box.left() < area.left() || box.right() > area.right() + 4.0) continue;
        if (best.isNull()) best = box;
        if (std::any_of(taken.begin(), taken.end(), [&](const QRectF& other) { return other.intersects(box); }))
          continue;
        if (!minding || std::none_of(lines.begin(), lines.end(), [&](const QPolygonF& l) { return crosses(l, wide); }))
          return box;
      }
    }
  }
  return best;
}

}  // namespace qs
