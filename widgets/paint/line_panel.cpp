#include "widgets/paint/line_panel.h"

#include <QFontMetricsF>
#include <QPainter>
#include <algorithm>
#include <cmath>
#include <limits>

#include "widgets/paint/axes.h"
#include "widgets/paint/line_painter.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

QFont bold(const FigureStyle& style) {
  QFont font = style.font;
  font.setBold(true);
  return font;
}

}  // namespace

bool LinePanel::isEmpty() const {
  return std::all_of(series.begin(), series.end(), [](const LineSeries& s) { return s.y.empty(); });
}

double LinePanel::toX(double x) const { return logX ? std::log2(std::max(x, 0.5)) : x; }

double LinePanel::xOfIndex(const LineSeries& line, std::size_t index) const {
  return toX(line.x.empty() ? static_cast<double>(index) : line.x[index]);
}

std::pair<double, double> LinePanel::fullX() const {
  double low = std::numeric_limits<double>::infinity(), high = -low;
  for (const LineSeries& s : series) {
    if (s.y.empty()) continue;
    low = std::min(low, xOfIndex(s, 0));
    high = std::max(high, xOfIndex(s, s.y.size() - 1));
  }
  if (!(low <= high)) return {0.0, 1.0};
  return low == high ? std::pair{low - 0.5, high + 0.5} : std::pair{low, high};
}

QRectF LinePanel::viewport() const {
  const auto [low, high] = view_ ? *view_ : fullX();
  return {low, 0.0, high - low, 1.0};
}

void LinePanel::setViewport(double from, double to) {
  if (isEmpty()) {
    if (from < to) view_ = {from, to};
    return;
  }
  const auto [low, high] = fullX();
  const double width = std::clamp(to - from, (high - low) * 1e-4, high - low);
  const double left = std::clamp(from, low, high - width);
  if (width >= (high - low) * 0.9999) {
    view_.reset();
  } else {
    view_ = {left, left + width};
  }
}

void LinePanel::zoom(double factor, double center) {
  const QRectF v = viewport();
  const double width = v.width() / factor, from = center - (center - v.left()) / factor;
  setViewport(from, from + width);
}

void LinePanel::pan(double by) { setViewport(viewport().left() + by, viewport().right() + by); }

analysis::ColorScale LinePanel::yScale() const {
  if (painted_) return *painted_;
  analysis::ColorScale scale;
  scale.kind = logY ? analysis::ScaleKind::Log10 : analysis::ScaleKind::Linear;
  double low = std::numeric_limits<double>::infinity(), high = -low;
  const auto extend = [&](double v) {
    if (!std::isfinite(v) || (logY && v <= 0)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  };
  for (const LineSeries& s : series) {
    for (const float v : s.y) extend(v);
    for (const float v : s.upper) extend(v);
    for (const float v : s.lower) extend(v);
  }
  if (threshold) extend(*threshold);
  if (!(low <= high)) low = logY ? 0.1 : 0.0, high = 1.0;
  if (logY) {
    scale.low = low / 1.15;
    scale.high = high * 1.25;
  } else {
    const double pad = low == high ? std::max(1e-9, std::fabs(low)) * 0.5 : (high - low) * 0.06;
    scale.low = low >= 0 && low - pad < 0 ? 0.0 : low - pad;
    scale.high = high + pad;
  }
  if (yLow) scale.low = *yLow;
  if (yHigh) scale.high = *yHigh;
  return scale;
}

QRectF LinePanel::captionRect(const QRectF& target, const FigureStyle& style) const {
  const QRectF room = target.adjusted(6, titleHeight(style) + 2, -6, 0);
  if (caption.isEmpty()) return {room.topLeft(), QSizeF(room.width(), 0)};
  return {room.topLeft(),
          QSizeF(room.width(), QFontMetricsF(bold(style)).boundingRect(room, Qt::TextWordWrap, caption).height() + 4)};
}

QRectF LinePanel::bodyRect(const QRectF& target, const FigureStyle& style) const {
  const QFontMetricsF metrics(style.font);
  double widest = metrics.horizontalAdvance(QStringLiteral("0.00"));
  for (const double tick : scale_ticks(yScale(), 5))
    widest = std::max(widest, metrics.horizontalAdvance(number_text(tick)));
  const double left = 12 + widest + (yTitle.isEmpty() ? 0 : metrics.height() + 2);
  const double bottom = metrics.height() + 8 + (xTitle.isEmpty() ? 0 : metrics.height());
  const double top = titleHeight(style) + 2 + captionRect(target, style).height();
  return QRectF(target.left() + left, target.top() + top, std::max(8.0, target.width() - left - 10),
                std::max(8.0, target.height() - top - bottom));
}

double LinePanel::screenX(double axis, const QRectF& body) const {
  const QRectF v = viewport();
  return body.left() + (axis - v.left()) / v.width() * body.width();
}

double LinePanel::axisAt(double x, const QRectF& body) const {
  const QRectF v = viewport();
  return v.left() + (x - body.left()) / body.width() * v.width();
}

double LinePanel::valueAt(double y, const QRectF& body) const {
  return yScale().value((body.bottom() - y) / body.height());
}

double LinePanel::yOf(double value, const QRectF& body) const {
  return body.bottom() - yScale().position(value) * body.height();
}

std::optional<std::int64_t> LinePanel::indexAt(double x, const QRectF& body) const {
  if (isEmpty() || series.front().y.empty()) return std::nullopt;
  const double wanted = axisAt(x, body);
  const LineSeries& line = series.front();
  std::size_t low = 0, high = line.y.size() - 1;
  while (low < high) {
    const std::size_t middle = (low + high) / 2;
    if (xOfIndex(line, middle) < wanted)
      low = middle + 1;
    else
      high = middle;
  }
  if (low > 0 && std::fabs(xOfIndex(line, low - 1) - wanted) < std::fabs(xOfIndex(line, low) - wanted)) --low;
  return static_cast<std::int64_t>(low);
}

int LinePanel::crowding(const QRectF& area, const QRectF& body) const {
  int count = 0;
  for (const LineSeries& line : series) {
    if (line.y.size() < 2) continue;
    // Sampled along x at the distance of a few pixels, so that a segment across the area counts as well as a point.
    std::size_t i = 0;
    double last = 0.0;
    bool known = false;
    for (double x = area.left(); x <= area.right(); x += 3.0) {
      const double axis = axisAt(x, body);
      if (axis < xOfIndex(line, 0) || axis > xOfIndex(line, line.y.size() - 1)) continue;
      while (i + 2 < line.y.size() && xOfIndex(line, i + 1) < axis) ++i;
      const double a = yOf(line.y[i], body), b = yOf(line.y[i + 1], body);
      const double from = xOfIndex(line, i), width = xOfIndex(line, i + 1) - from;
      const double y = width > 0 ? a + (b - a) * std::clamp((axis - from) / width, 0.0, 1.0) : a;
      const double before = known ? last : y;
      if (std::max(before, y) >= area.top() - 3 && std::min(before, y) <= area.bottom() + 3) ++count;
      last = y;
      known = true;
    }
  }
  return count;
}

QRectF LinePanel::legendRect(const QRectF& body, const FigureStyle& style) const {
  if (series.size() < 2) return {};
  const QFontMetricsF metrics(style.font);
  double widest = 0.0;
  for (const LineSeries& line : series) widest = std::max(widest, metrics.horizontalAdvance(line.name));
  const QSizeF size(widest + 36, static_cast<double>(series.size()) * metrics.height() + 4);
  const double right = body.right() - size.width() - 2, left = body.left() + 2;
  const double top = body.top() + 2, bottom = body.bottom() - size.height() - 2;
  QRectF best;
  int fewest = std::numeric_limits<int>::max();
  for (const QPointF& corner :
       {QPointF(right, bottom), QPointF(right, top), QPointF(left, bottom), QPointF(left, top)}) {
    const QRectF area(corner, size);
    int crowd = crowding(area, body);
    if (corner.y() == top && !marks.empty()) crowd += 500;
    if (threshold) {
      const double y = yOf(*threshold, body);
      if (y > area.top() && y < area.bottom()) crowd += 100;
    }
    if (crowd < fewest) best = area, fewest = crowd;
  }
  return best;
}

void LinePanel::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  paintTitle(painter, target, style);
  if (isEmpty()) {
    paintPlaceholder(painter, target, style);
    painter.restore();
    return;
  }
  const QRectF body = bodyRect(target, style);
  const analysis::ColorScale scale = yScale();
  painted_ = scale;
  const QFontMetricsF metrics(style.font);
  const QRectF v = viewport();
  std::vector<AxisTick> xs, ys;
  if (logX) {
    for (double e = std::ceil(v.left()); e <= v.right() + 1e-9; ++e)
      xs.push_back({screenX(e, body), e < 0 ? QStringLiteral("0") : number_text(std::exp2(e), 6)});
  } else {
    for (const double t : nice_ticks(v.left(), v.right(), std::max(2, static_cast<int>(body.width() / 70))))
      xs.push_back({screenX(t, body), number_text(t, 6)});
  }
  for (const double t : scale_ticks(scale, std::max(2, static_cast<int>(body.height() / 40))))
    ys.push_back({yOf(t, body), number_text(t)});
  painter.setPen(QPen(style.grid, style.lineWidth));
  for (const AxisTick& t : ys) painter.drawLine(QPointF(body.left(), t.at), QPointF(body.right(), t.at));
  painter.save();
  painter.setClipRect(body.adjusted(-1, -1, 1, 1));
  painter.setRenderHint(QPainter::Antialiasing);
  const double column = is_vector(painter) ? 0.25 : 1.0;
  for (const LineSeries& line : series) {
    if (line.y.empty()) continue;
    const QColor color = line.color == 0 ? style.accent : line.color == 1 ? style.accentB : style.muted;
    const auto x_of = [&](std::size_t i) { return screenX(xOfIndex(line, i), body); };
    const auto y_of = [&](float value) { return yOf(value, body); };
    if (line.lower.size() == line.y.size() && line.upper.size() == line.y.size()) {
      QPolygonF band = decimated_line(line.upper, x_of, y_of, column);
      const QPolygonF lower = decimated_line(line.lower, x_of, y_of, column);
      for (auto it = lower.rbegin(); it != lower.rend(); ++it) band << *it;
      QColor fill = color;
      fill.setAlphaF(0.18f);
      painter.setPen(Qt::NoPen);
      painter.setBrush(fill);
      painter.drawPolygon(band);
    }
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(color, style.lineWidth * 1.6, line.dashed ? Qt::DashLine : Qt::SolidLine));
    const QPolygonF points = decimated_line(line.y, x_of, y_of, column);
    painter.drawPolyline(points);
    if (line.points && line.y.size() <= 200) {
      painter.setPen(Qt::NoPen);
      painter.setBrush(color);
      for (const QPointF& p : points) painter.drawEllipse(p, 2.4, 2.4);
    }
  }
  painter.restore();
  painter.setFont(style.font);
  double mark_y = body.top() + metrics.ascent() + 2;
  for (const LineMark& mark : marks) {
    const double x = screenX(toX(mark.x), body);
    if (x < body.left() || x > body.right()) continue;
    painter.setPen(QPen(style.warning, style.lineWidth, Qt::DashLine));
    painter.drawLine(QPointF(x, body.top()), QPointF(x, body.bottom()));
    const double width = metrics.horizontalAdvance(mark.label);
    painter.setPen(style.warning);
    painter.drawText(QPointF(x + 4 + width > body.right() ? x - 4 - width : x + 4, mark_y), mark.label);
    mark_y += metrics.height();
  }
  const QRectF legend = legendRect(body, style);
  if (threshold) {
    const double y = yOf(*threshold, body);
    painter.setPen(QPen(style.warning, style.lineWidth * 1.2, Qt::DashLine));
    painter.drawLine(QPointF(body.left(), y), QPointF(body.right(), y));
    painter.setPen(style.warning);
    const QSizeF size(metrics.horizontalAdvance(thresholdLabel), metrics.height());
    const bool above = y >= body.top() + size.height() + 4;
    // Where neither a curve nor the legend is: from the left edge to the right one.
    QRectF best;
    int fewest = std::numeric_limits<int>::max();
    for (int step = 0; step <= 4; ++step) {
      const double x = body.left() + 4 + step * std::max(0.0, body.width() - size.width() - 8) / 4;
      const QRectF area(QPointF(x, above ? y - size.height() - 2 : y + 2), size);
      const int crowd = crowding(area, body) + (area.intersects(legend) ? 1000 : 0);
      if (crowd < fewest) best = area, fewest = crowd;
    }
    painter.drawText(QPointF(best.left(), best.top() + metrics.ascent()), thresholdLabel);
  }
  if (cursor && *cursor >= 0 && static_cast<std::size_t>(*cursor) < series.front().y.size()) {
    const auto i = static_cast<std::size_t>(*cursor);
    const double x = screenX(xOfIndex(series.front(), i), body);
    painter.setPen(QPen(style.foreground, style.lineWidth));
    painter.drawLine(QPointF(x, body.top()), QPointF(x, body.bottom()));
    painter.setBrush(style.background);
    painter.drawEllipse(QPointF(x, yOf(series.front().y[i], body)), 3.5, 3.5);
  }
  painter.setPen(QPen(style.muted, style.lineWidth));
  painter.setBrush(Qt::NoBrush);
  painter.drawRect(body);
  paint_horizontal_axis(painter, style, body.left(), body.right(), body.bottom(), xs, xTitle);
  paint_vertical_axis(painter, style, body.top(), body.bottom(), body.left(), ys, yTitle,
                      target.left() + 4 + metrics.ascent());
  if (series.size() > 1) {
    QColor behind = style.background;
    behind.setAlphaF(0.8f);
    painter.fillRect(legend, behind);
    double y = legend.top() + 2 + metrics.ascent();
    const double right = legend.right() - 6;
    for (const LineSeries& line : series) {
      const QColor color = line.color == 0 ? style.accent : line.color == 1 ? style.accentB : style.muted;
      const double width = metrics.horizontalAdvance(line.name);
      painter.setPen(QPen(color, style.lineWidth * 2, line.dashed ? Qt::DashLine : Qt::SolidLine));
      painter.drawLine(QPointF(right - width - 24, y - 4), QPointF(right - width - 4, y - 4));
      painter.setPen(style.foreground);
      painter.drawText(QPointF(right - width, y), line.name);
      y += metrics.height();
    }
  }
  if (!caption.isEmpty()) {
    painter.setFont(bold(style));
    painter.setPen(style.foreground);
    painter.drawText(captionRect(target, style), Qt::AlignTop | Qt::AlignLeft | Qt::TextWordWrap, caption);
  }
  painted_.reset();
  painter.restore();
}

QString LinePanel::summary() const {
  if (isEmpty()) return placeholder.isEmpty() ? QStringLiteral("%1: nothing to show").arg(title) : placeholder;
  const analysis::ColorScale scale = yScale();
  QStringList names;
  for (const LineSeries& s : series) names << s.name;
  return QStringLiteral("%1: %2 against %3; %4; from %5 to %6. %7 %8")
      .arg(title, yTitle, xTitle, names.join(QStringLiteral(", ")), number_text(scale.low), number_text(scale.high),
           thresholdLabel, caption)
      .trimmed();
}

}  // namespace qs
