#include "widgets/paint/color_bar.h"

#include <QFontMetricsF>
#include <QImage>
#include <QPainter>
#include <algorithm>

#include "widgets/paint/axes.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

constexpr double kBar = 10.0;

double label_width(const FigureStyle& style, const analysis::ColorScale& scale) {
  const QFontMetricsF metrics(style.font);
  double widest = 0.0;
  for (const double tick : scale_ticks(scale, 5))
    widest = std::max(widest, metrics.horizontalAdvance(number_text(tick)));
  return widest;
}

}  // namespace

double color_bar_width(const FigureStyle& style, const analysis::ColorScale& scale, bool with_title) {
  return kBar + 7 + label_width(style, scale) + (with_title ? QFontMetricsF(style.font).height() + 2 : 0);
}

void paint_color_bar(QPainter& painter, const FigureStyle& style, const QRectF& bar, const analysis::ColorScale& scale,
                     MapName map, const QString& title) {
  QImage strip(1, 256, QImage::Format_RGB32);
  for (int i = 0; i < 256; ++i) strip.setPixel(0, i, ColorMap::get(map).at(255 - i));
  const QRectF body(bar.left(), bar.top(), kBar, bar.height());
  painter.setRenderHint(QPainter::SmoothPixmapTransform, false);
  painter.drawImage(body, strip);
  painter.setPen(QPen(style.muted, style.lineWidth));
  painter.setBrush(Qt::NoBrush);
  painter.drawRect(body);
  std::vector<AxisTick> ticks;
  const int wanted = std::clamp(static_cast<int>(bar.height() / (QFontMetricsF(style.font).height() * 2.2)), 2, 7);
  for (const double tick : scale_ticks(scale, wanted))
    ticks.push_back({body.bottom() - scale.position(tick) * body.height(), number_text(tick)});
  const double title_x = body.right() + 7 + label_width(style, scale) + QFontMetricsF(style.font).ascent();
  paint_vertical_axis(painter, style, body.top(), body.bottom(), body.right(), ticks, title, title_x, true);
}

}  // namespace qs
