#include "widgets/paint/axes.h"

#include <QFontMetricsF>
#include <QPainter>
#include <algorithm>
#include <cmath>

#include "widgets/view_base.h"

namespace qs {
namespace {

double nice_step(double span, int wanted) {
  const double raw = span / std::max(1, wanted);
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  const double lead = raw / power;
  return (lead <= 1.0 ? 1.0 : lead <= 2.0 ? 2.0 : lead <= 5.0 ? 5.0 : 10.0) * power;
}

}  // namespace

std::vector<double> nice_ticks(double low, double high, int wanted) {
  std::vector<double> ticks;
  if (!(low < high) || !std::isfinite(low) || !std::isfinite(high)) return ticks;
  const double step = nice_step(high - low, wanted);
  const auto first = static_cast<long long>(std::ceil(low / step - 1e-9));
  const auto last = static_cast<long long>(std::floor(high / step + 1e-9));
  for (long long i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

std::vector<double> index_ticks(double low, double high, int wanted) {
  std::vector<double> ticks;
  if (!(low < high)) return ticks;
  const double step = std::max(1.0, nice_step(high - low, wanted));
  for (double v = std::ceil(low / step) * step; v <= high; v += step) ticks.push_back(v);
  return ticks;
}

std::vector<double> scale_ticks(const analysis::ColorScale& scale, int wanted) {
  if (scale.kind == analysis::ScaleKind::Linear) return nice_ticks(scale.low, scale.high, wanted);
  std::vector<double> ticks;
  const auto add_decades = [&](double low, double high, double sign) {
    const int from = static_cast<int>(std::ceil(std::log10(low) - 1e-9)),
              to = static_cast<int>(std::floor(std::log10(high) + 1e-9));
    const int every = std::max(1, (to - from) / std::max(1, wanted) + ((to - from) % std::max(1, wanted) ? 1 : 0));
    for (int e = from; e <= to; e += every) ticks.push_back(sign * std::pow(10.0, e));
  };
  if (scale.kind == analysis::ScaleKind::Log10) {
    add_decades(scale.low, scale.high, 1.0);
    if (ticks.size() < 2)
      for (const double t : nice_ticks(scale.low, scale.high, wanted)) ticks.push_back(t);
  } else {
    if (scale.low < 0) {
      if (-scale.low > scale.linear_width) add_decades(scale.linear_width, -scale.low, -1.0);
      ticks.push_back(0.0);
    }
    if (scale.high > scale.linear_width) add_decades(scale.linear_width, scale.high, 1.0);
  }
  std::sort(ticks.begin(), ticks.end());
  return ticks;
}

QString number_text(double value, int digits) {
  if (value == 0.0) return QStringLiteral("0");
  if (std::isnan(value)) return QStringLiteral("NaN");
  if (std::isinf(value)) return value > 0 ? QStringLiteral("inf") : QStringLiteral("-inf");
  QString text = QString::number(value, 'g', digits);
  text.replace(QStringLiteral("e-0"), QStringLiteral("e-")).replace(QStringLiteral("e+0"), QStringLiteral("e"));
  return text.replace(QStringLiteral("e+"), QStringLiteral("e"));
}

void paint_horizontal_axis(QPainter& painter, const FigureStyle& style, double left, double right, double y,
                           const std::vector<AxisTick>& ticks, const QString& title, bool above) {
  const QFontMetricsF metrics(style.font);
  const double direction = above ? -1.0 : 1.0;
  painter.setFont(style.font);
  double taken = -1e9;
  for (const AxisTick& tick : ticks) {
    if (tick.at < left - 0.5 || tick.at > right + 0.5) continue;
    const double width = metrics.horizontalAdvance(tick.text);
    painter.setPen(QPen(style.muted, style.lineWidth));
    painter.drawLine(QPointF(tick.at, y), QPointF(tick.at, y + direction * 3));
    double x = tick.at - width / 2;
    if (x < taken + 5) continue;
    painter.setPen(style.foreground);
    painter.drawText(QPointF(x, above ? y - 5 : y + 4 + metrics.ascent()), tick.text);
    taken = x + width;
  }
  if (!title.isEmpty()) {
    painter.setPen(style.muted);
    const QString text = metrics.elidedText(title, Qt::ElideRight, std::max(20.0, right - left + 30));
    painter.drawText(QPointF((left + right - metrics.horizontalAdvance(text)) / 2,
                             above ? y - 6 - metrics.height() : y + 5 + metrics.height() + metrics.ascent()),
                     text);
  }
}

void paint_vertical_axis(QPainter& painter, const FigureStyle& style, double top, double bottom, double x,
                         const std::vector<AxisTick>& ticks, const QString& title, double title_x, bool right) {
  const QFontMetricsF metrics(style.font);
  painter.setFont(style.font);
  std::vector<double> taken;
  for (const AxisTick& tick : ticks) {
    if (tick.at < top - 0.5 || tick.at > bottom + 0.5) continue;
    painter.setPen(QPen(style.muted, style.lineWidth));
    painter.drawLine(QPointF(x, tick.at), QPointF(right ? x + 3 : x - 3, tick.at));
    if (std::any_of(taken.begin(), taken.end(),
                    [&](double t) { return std::fabs(t - tick.at) < metrics.height() * 0.95; }))
      continue;
    taken.push_back(tick.at);
    painter.setPen(style.foreground);
    const double width = metrics.horizontalAdvance(tick.text);
    painter.drawText(QPointF(right ? x + 5 : x - 5 - width, tick.at + (metrics.ascent() - metrics.descent()) / 2),
                     tick.text);
  }
  if (!title.isEmpty()) {
    painter.save();
    painter.setPen(style.muted);
    painter.translate(title_x, (top + bottom) / 2);
    painter.rotate(-90);
    const QString text = metrics.elidedText(title, Qt::ElideRight, std::max(20.0, bottom - top + 20));
    painter.drawText(QPointF(-metrics.horizontalAdvance(text) / 2, 0), text);
    painter.restore();
  }
}

}  // namespace qs
