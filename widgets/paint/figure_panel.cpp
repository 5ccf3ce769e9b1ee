#include "widgets/paint/figure_panel.h"

#include <QFontMetricsF>
#include <QPaintEngine>
#include <QPainter>
#include <algorithm>

#include "widgets/view_base.h"

namespace qs {

double FigurePanel::titleHeight(const FigureStyle& style) { return QFontMetricsF(style.font).height() + 6; }

double FigurePanel::paintTitle(QPainter& painter, const QRectF& target, const FigureStyle& style) const {
  QFont bold = style.font;
  bold.setBold(true);
  const QFontMetricsF metrics(bold), small(style.font);
  const double baseline = target.top() + 3 + metrics.ascent();
  // The note takes what the title leaves, at least a third of the line.
  const double left_over = std::max(target.width() - metrics.horizontalAdvance(title) - 22, target.width() * 0.33);
  const double note_width = note.isEmpty() ? 0.0 : std::min(small.horizontalAdvance(note), left_over);
  painter.setFont(bold);
  painter.setPen(style.foreground);
  painter.drawText(QPointF(target.left() + 6, baseline),
                   metrics.elidedText(title, Qt::ElideRight, std::max(10.0, target.width() - note_width - 22)));
  painter.setFont(style.font);
  if (!note.isEmpty()) {
    painter.setPen(style.muted);
    painter.drawText(QPointF(target.right() - 6 - note_width, baseline),
                     small.elidedText(note, Qt::ElideRight, note_width + 1));
  }
  return titleHeight(style);
}

void FigurePanel::paintPlaceholder(QPainter& painter, const QRectF& target, const FigureStyle& style) const {
  painter.setFont(style.font);
  painter.setPen(style.muted);
  painter.drawText(target.adjusted(12, 0, -12, 0), Qt::AlignCenter | Qt::TextWordWrap, placeholder);
}

bool is_vector(QPainter& painter) {
  const QPaintEngine* engine = painter.paintEngine();
  if (!engine) return false;
  return engine->type() == QPaintEngine::SVG || engine->type() == QPaintEngine::Pdf ||
         engine->type() == QPaintEngine::Picture;
}

}  // namespace qs
