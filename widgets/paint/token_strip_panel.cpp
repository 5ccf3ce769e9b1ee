#include "widgets/paint/token_strip_panel.h"

#include <QFontMetricsF>
#include <QPainter>
#include <algorithm>
#include <cmath>

#include "widgets/paint/axes.h"
#include "widgets/view_base.h"

namespace qs {

QRectF TokenStripPanel::bodyRect(const QRectF& target, const FigureStyle& style) const {
  return target.adjusted(8, titleHeight(style) + 2, -8, -4);
}

void TokenStripPanel::scrollLines(int lines) {
  first_line_ = std::clamp(first_line_ + lines, 0, std::max(0, lines_ - shown_lines_));
}

qint64 TokenStripPanel::tokenAt(QPointF at) const {
  for (const Box& box : boxes_)
    if (box.rect.contains(at)) return box.token;
  return -1;
}

void TokenStripPanel::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  paintTitle(painter, target, style);
  if (isEmpty()) {
    paintPlaceholder(painter, target, style);
    painter.restore();
    return;
  }
  const QRectF body = bodyRect(target, style);
  const QFontMetricsF metrics(style.font);
  const double height = metrics.height() + 4;
  shown_lines_ = std::max(1, static_cast<int>(body.height() / height));
  std::vector<std::pair<int, QRectF>> places;
  double x = 0.0;
  int line = 0;
  for (const QString& token : tokens) {
    QString shown = token;
    const double width =
        std::max(5.0, metrics.horizontalAdvance(shown.replace(QLatin1Char('\n'), QStringLiteral("⏎")))) + 2;
    if (x + width > body.width() && x > 0) x = 0.0, ++line;
    places.push_back({line, QRectF(x, 0, width, height)});
    x += width;
  }
  lines_ = line + 1;
  const qint64 anchor = cursor >= 0 ? cursor : selected;
  if (follow && anchor >= 0 && anchor < tokens.size()) {
    const int at = places[static_cast<std::size_t>(anchor)].first;
    if (at < first_line_) first_line_ = at;
    if (at >= first_line_ + shown_lines_) first_line_ = at - shown_lines_ / 2;
  }
  first_line_ = std::clamp(first_line_, 0, std::max(0, lines_ - shown_lines_));
  boxes_.clear();
  painter.setClipRect(body);
  painter.setFont(style.font);
  for (std::size_t i = 0; i < places.size(); ++i) {
    const int row = places[i].first - first_line_;
    if (row < 0 || row >= shown_lines_) continue;
    const QRectF box = places[i].second.translated(body.left(), body.top() + row * height);
    boxes_.push_back({box, static_cast<qint64>(i)});
    painter.setPen(style.foreground);
    if (i < values.size() && std::isfinite(values[i])) {
      const QRgb color = values[i] > 0 ? ColorMap::get(map).color(scale.position(values[i])) : style.background.rgb();
      painter.fillRect(box.adjusted(0, 1, 0, -1), QColor(color));
      painter.setPen(oklab_lightness(color) > 0.62 ? QColor(20, 20, 20) : QColor(245, 245, 245));
    }
    QString shown = tokens[static_cast<qsizetype>(i)];
    painter.drawText(QPointF(box.left() + 1, box.top() + 2 + metrics.ascent()),
                     shown.replace(QLatin1Char('\n'), QStringLiteral("⏎")));
    if (static_cast<qint64>(i) == selected || static_cast<qint64>(i) == cursor) {
      painter.setPen(QPen(static_cast<qint64>(i) == selected ? style.warning : style.foreground, style.lineWidth * 2));
      painter.setBrush(Qt::NoBrush);
      painter.drawRect(box.adjusted(0.5, 1.5, -0.5, -1.5));
    }
  }
  painter.restore();
}

QString TokenStripPanel::summary() const {
  if (isEmpty()) return placeholder;
  return QStringLiteral("%1: %2 tokens").arg(title).arg(tokens.size());
}

}  // namespace qs
