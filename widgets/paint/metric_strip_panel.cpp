#include "widgets/paint/metric_strip_panel.h"

#include <QFontMetricsF>
#include <QPainter>
#include <algorithm>
#include <cmath>

#include "widgets/paint/axes.h"
#include "widgets/view_base.h"

namespace qs {

void MetricStripPanel::setVariants(std::vector<analysis::MetricPair> variants) {
  variants_ = std::move(variants);
  disagree_ = analysis::disagreements(variants_);
  note = std::find(disagree_.begin(), disagree_.end(), true) == disagree_.end()
             ? QString()
             : QObject::tr("disagree: reconstruction ranks the variants differently from function");
}

QRectF MetricStripPanel::bodyRect(const QRectF& target, const FigureStyle& style) const {
  const double top = titleHeight(style) + 2;
  return target.adjusted(8, top, -8, -4);
}

void MetricStripPanel::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  paintTitle(painter, target, style);
  if (isEmpty()) {
    paintPlaceholder(painter, target, style);
    painter.restore();
    return;
  }
  const QRectF body = bodyRect(target, style);
  const QFontMetricsF metrics(style.font);
  painter.setFont(style.font);
  double name_width = 40.0, first = 0.0, second = 0.0;
  for (const auto& v : variants_) {
    name_width = std::max(name_width, metrics.horizontalAdvance(QString::fromStdString(v.label)) + 10);
    if (std::isfinite(v.reconstruction)) first = std::max(first, v.reconstruction);
    if (std::isfinite(v.functional)) second = std::max(second, v.functional);
  }
  name_width = std::min(name_width, body.width() * 0.38);
  const QString flag = QObject::tr("disagree");
  const double flag_width = std::any_of(disagree_.begin(), disagree_.end(), [](bool b) { return b; })
                                ? metrics.horizontalAdvance(flag) + 16
                                : 0;
  const double half = (body.width() - name_width - flag_width) / 2;
  const double number = metrics.horizontalAdvance(QStringLiteral("0.00000"));
  const double line =
      std::min(metrics.height() + 6, (body.height() - metrics.height()) / static_cast<double>(variants_.size()));
  painter.setPen(style.muted);
  for (int k = 0; k < 2; ++k)
    painter.drawText(QPointF(body.left() + name_width + k * half, body.top() + metrics.ascent()),
                     metrics.elidedText(k ? functionalTitle : reconstructionTitle, Qt::ElideRight, half - 8));
  for (std::size_t i = 0; i < variants_.size(); ++i) {
    const double y = body.top() + metrics.height() + 2 + static_cast<double>(i) * line;
    if (y + metrics.ascent() > body.bottom() + 2) break;
    const double baseline = y + (line + metrics.ascent() - metrics.descent()) / 2;
    painter.setPen(style.foreground);
    painter.drawText(QPointF(body.left(), baseline),
                     metrics.elidedText(QString::fromStdString(variants_[i].label), Qt::ElideMiddle, name_width - 8));
    for (int k = 0; k < 2; ++k) {
      const double value = k ? variants_[i].functional : variants_[i].reconstruction, top = k ? second : first;
      const double room = std::max(4.0, half - number - 16);
      const double width = std::isfinite(value) && top > 0 ? room * value / top : 0.0;
      const double x = body.left() + name_width + k * half;
      painter.fillRect(QRectF(x, y + 3, room, line - 6), style.grid);
      painter.fillRect(QRectF(x, y + 3, width, line - 6), disagree_[i] ? style.warning
                                                          : k          ? style.accentB
                                                                       : style.accent);
      painter.setPen(style.foreground);
      painter.drawText(QPointF(x + room + 6, baseline),
                       std::isfinite(value) ? number_text(value, 3) : QStringLiteral("–"));
    }
    if (disagree_[i]) {
      painter.setPen(style.warning);
      painter.drawText(QPointF(body.right() - flag_width + 10, baseline), flag);
    }
  }
  painter.restore();
}

QString MetricStripPanel::summary() const {
  QStringList parts;
  for (std::size_t i = 0; i < variants_.size(); ++i)
    parts << QStringLiteral("%1: %2 %3, %4 %5%6")
                 .arg(QString::fromStdString(variants_[i].label), reconstructionTitle,
                      number_text(variants_[i].reconstruction), functionalTitle, number_text(variants_[i].functional),
                      disagree_[i] ? QObject::tr(" (the two disagree)") : QString());
  return parts.join(QStringLiteral("; "));
}

QRectF CodeStripPanel::bodyRect(const QRectF& target, const FigureStyle& style) const {
  return target.adjusted(8, titleHeight(style) + 2, -8, -QFontMetricsF(style.font).height() - 4);
}

void CodeStripPanel::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  const auto used = std::count_if(codes.counts.begin(), codes.counts.end(), [](std::int64_t n) { return n > 0; });
  note = isEmpty() ? QString()
         : byWidth ? QObject::tr("bits a code")
                   : QObject::tr("%1 of %2 used").arg(used).arg(codes.counts.size());
  paintTitle(painter, target, style);
  if (isEmpty()) {
    paintPlaceholder(painter, target, style);
    painter.restore();
    return;
  }
  const QRectF body = bodyRect(target, style);
  const QFontMetricsF metrics(style.font);
  const auto count = static_cast<double>(codes.counts.size());
  const auto top =
      static_cast<double>(std::max<std::int64_t>(1, *std::max_element(codes.counts.begin(), codes.counts.end())));
  const double step = body.width() / count, gap = step > 4 ? 1.0 : 0.0;
  painter.setFont(style.font);
  double free_from = body.left() - 4;
  for (std::size_t i = 0; i < codes.counts.size(); ++i) {
    const double x = body.left() + static_cast<double>(i) * step;
    const bool extreme = !byWidth && (i == 0 || i + 1 == codes.counts.size());
    const double height = static_cast<double>(codes.counts[i]) / top * body.height();
    painter.fillRect(QRectF(x, body.top(), step - gap, body.height()), style.grid);
    painter.fillRect(QRectF(x, body.bottom() - height, step - gap, height), extreme ? style.accentB : style.accent);
    const QString text = QString::number(i);
    const double width = metrics.horizontalAdvance(text), at = std::min(x + (step - width) / 2, body.right() - width);
    const double reserved = extreme ? 0.0 : metrics.horizontalAdvance(QString::number(codes.counts.size() - 1)) + 4;
    if (at < free_from + 4 || at + width > body.right() - reserved) continue;
    painter.setPen(style.muted);
    painter.drawText(QPointF(at, body.bottom() + 2 + metrics.ascent()), text);
    free_from = at + width;
  }
  painter.restore();
}

QString CodeStripPanel::summary() const {
  if (isEmpty()) return placeholder;
  QStringList parts;
  for (std::size_t i = 0; i < codes.counts.size(); ++i) parts << QStringLiteral("%1: %2").arg(i).arg(codes.counts[i]);
  return (byWidth ? QObject::tr("%1. Cells with codes of each number of bits: %2; in full precision: %3")
                  : QObject::tr("%1. Cells of each code: %2; in full precision: %3"))
      .arg(title, parts.join(QStringLiteral(", ")))
      .arg(codes.full_precision);
}

}  // namespace qs
