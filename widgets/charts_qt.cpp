#include <QGraphicsLayout>
#include <QGraphicsScene>
#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QPainterPath>
#include <QPixmap>
#include <QToolTip>
#include <QtCharts/QChart>
#include <QtCharts/QLegend>
#include <QtCharts/QLineSeries>
#include <QtCharts/QLogValueAxis>
#include <QtCharts/QValueAxis>
#include <cmath>

#include "widgets/plot_marks.h"
#include "widgets/plot_range.h"
#include "widgets/plot_view.h"

namespace qs {

namespace {

bool isDark(const QColor& background) { return background.lightnessF() < 0.5; }

QFont layoutFont(const QFont& font, double factor) {
  QFont scaled = font;
  const double pixels = font.pixelSize() > 0 ? font.pixelSize() : font.pointSizeF() * 96.0 / 72.0;
  scaled.setPixelSize(std::max(7, static_cast<int>(std::lround(pixels * factor))));
  return scaled;
}

QString numberText(double value) { return QString::number(value, 'g', 6); }

}  // namespace

QColor seriesColor(int index, const QColor& background) {
  static const char* const kLight[] = {"#0072B2", "#D55E00", "#00805C", "#A6468A", "#B07A00", "#3F3F3F"};
  static const char* const kDark[] = {"#56B4E9", "#FF9447", "#3FD1A5", "#E79AC9", "#F0C24B", "#CFCFCF"};
  return QColor(QLatin1String((isDark(background) ? kDark : kLight)[((index % 6) + 6) % 6]));
}

struct PlotView::Impl {
  PlotSpec spec;
  QGraphicsScene scene;
  QChart* chart = nullptr;
  PlotRange x, y;
  QRectF plotArea;  // in the units of the last target
  QPixmap cache;
  bool cacheStale = true;
  int cursorSeries = 0, cursorIndex = -1;

  /// A fresh chart for every picture: one that is reused keeps items of removed axes until the event loop runs.
  void makeChart() {
    scene.clear();
    chart = new QChart;
    scene.addItem(chart);
    chart->setBackgroundVisible(false);
    chart->setPlotAreaBackgroundVisible(false);
    chart->setAnimationOptions(QChart::NoAnimation);
    chart->setMargins(QMargins(2, 2 + static_cast<int>(std::ceil(spec.corner.height())), 6, 2));
    chart->layout()->setContentsMargins(0, 0, 0, 0);
    chart->setBackgroundRoundness(0);
  }

  bool hasPoints() const {
    for (const PlotSeries& series : spec.series) {
      if (!series.points.isEmpty()) return true;
    }
    return false;
  }

  void findRanges() {
    PlotExtent ex, ey;
    for (const PlotSeries& series : spec.series) {
      if (series.filled && !spec.y.log) ey.add(0.0);
      for (const PlotPoint& point : series.points) {
        ex.add(point.x);
        ey.add(point.y);
        if (series.spread != PlotSeries::Spread::None) {
          ey.add(point.low);
          ey.add(point.high);
        }
      }
    }
    for (const PlotRule& rule : spec.rules) (rule.vertical ? ex : ey).add(rule.at);
    x = plotRange(spec.x, ex, spec.labels);
    y = plotRange(spec.y, ey, true);
  }

  QAbstractAxis* makeAxis(const PlotAxis& wanted, PlotRange& range, double extentPx) const {
    if (wanted.log) {
      auto* axis = new QLogValueAxis;
      // A label takes about 22 pixels: over many decades on a low plot every second or third has one.
      const double decades = std::log10(range.high / range.low);
      const double step = std::max(1.0, std::ceil(decades * 22.0 / std::max(22.0, extentPx)));
      axis->setBase(std::pow(10.0, step));
      axis->setLabelFormat(QStringLiteral("%g"));
      axis->setRange(range.low * (1.0 - 1e-9), range.high * (1.0 + 1e-9));  // so that the end decades count as inside
      axis->setMinorTickCount(decades <= 4.0 && step < 1.5 ? 8 : 0);
      return axis;
    }
    auto* axis = new QValueAxis;
    double step = plotStep(range.high - range.low, static_cast<int>(extentPx / 70.0));
    if (wanted.integer) step = std::max(1.0, std::round(step));
    axis->setTickType(QValueAxis::TicksDynamic);
    axis->setTickAnchor(0.0);
    axis->setTickInterval(step);
    axis->setRange(range.low, range.high);
    const int decimals = std::clamp(static_cast<int>(std::ceil(-std::log10(step) - 1e-9)), 0, 9);
    const double peak = std::max(std::abs(range.low), std::abs(range.high));
    axis->setLabelFormat(peak >= 1e6 || (peak > 0 && peak < 1e-4) ? QStringLiteral("%.1e")
                                                                  : QStringLiteral("%.%1f").arg(decimals));
    return axis;
  }

  static bool isLow(const QSizeF& size) { return size.height() < 190.0; }

  void rebuild(const QSizeF& size, const FigureStyle& style) {
    makeChart();
    findRanges();
    QAbstractAxis* axisX = makeAxis(spec.x, x, size.width());
    const bool low = isLow(size);
    QAbstractAxis* axisY = makeAxis(spec.y, y, low ? size.height() - spec.corner.height() - 26.0 : size.height() * 1.4);
    if (!low) {  // a low plot has its titles inside the plot area
      axisX->setTitleText(spec.x.title);
      axisY->setTitleText(spec.y.title);
    }
    const QFont font = layoutFont(style.font, 0.9), titleFont = layoutFont(style.font, 0.95);
    for (QAbstractAxis* axis : {axisX, axisY}) {
      axis->setLabelsFont(font);
      axis->setTitleFont(titleFont);
      axis->setLabelsColor(style.foreground);
      axis->setTitleBrush(style.foreground);
      axis->setLinePen(QPen(style.muted, style.lineWidth));
      axis->setGridLinePen(QPen(style.grid, style.lineWidth * 0.7));
      axis->setMinorGridLinePen(QPen(style.grid, style.lineWidth * 0.35, Qt::DotLine));
    }
    chart->addAxis(axisX, Qt::AlignBottom);
    chart->addAxis(axisY, Qt::AlignLeft);
    int shown = 0;
    for (int i = 0; i < spec.series.size(); ++i) {
      const PlotSeries& series = spec.series[i];
      auto* line = new QLineSeries;
      line->setName(series.name);
      QPen pen(colorOf(i, style), series.shape == PlotSeries::Shape::Points ? 0.01 : style.lineWidth * 1.8);
      if (series.dashed) pen.setStyle(Qt::DashLine);
      pen.setJoinStyle(Qt::RoundJoin);
      line->setPen(pen);
      line->setColor(colorOf(i, style));
      QList<QPointF> points;
      if (series.shape != PlotSeries::Shape::Points) {
        for (const PlotPoint& point : series.points) {
          if (!std::isfinite(point.y) || point.marker == PlotPoint::Marker::Cross ||
              point.marker == PlotPoint::Marker::Hollow)
            continue;
          const QPointF at(clampX(point.x), clampY(point.y));
          if (series.shape == PlotSeries::Shape::Steps && !points.isEmpty()) points.append({at.x(), points.last().y()});
          points.append(at);
        }
      }
      line->replace(points);
      chart->addSeries(line);
      line->attachAxis(axisX);
      line->attachAxis(axisY);
      if (!series.name.isEmpty()) ++shown;
    }
    chart->setTitle(spec.title);
    QFont bold = layoutFont(style.font, 1.0);
    bold.setBold(true);
    chart->setTitleFont(bold);
    chart->setTitleBrush(style.foreground);
    chart->legend()->setVisible(spec.legend && shown > 1 && spec.corner.isEmpty());
    chart->legend()->setAlignment(Qt::AlignTop);
    chart->legend()->setFont(font);
    chart->legend()->setLabelColor(style.foreground);
    chart->legend()->setMarkerShape(QLegend::MarkerShapeRectangle);
    chart->legend()->setContentsMargins(0, 0, 0, 0);
    chart->resize(size);
    scene.setSceneRect(QRectF(QPointF(0, 0), size));
    chart->layout()->activate();
  }

  double clampX(double value) const { return x.log ? std::max(value, x.floor) : value; }
  double clampY(double value) const { return y.log ? std::max(value, y.floor) : value; }
  QColor colorOf(int index, const FigureStyle& style) const {
    return seriesColor(spec.series[index].color >= 0 ? spec.series[index].color : index, style.background);
  }
  QPointF map(const QRectF& area, double px, double py) const {
    return {area.left() + x.fraction(px) * area.width(), area.bottom() - y.fraction(py) * area.height()};
  }

  void paintUnder(QPainter& painter, const QRectF& area, const FigureStyle& style, const QFont& font) const {
    painter.save();
    painter.setClipRect(area);
    painter.setPen(Qt::NoPen);
    for (const PlotSpan& span : spec.spans) {
      QColor fill = style.accent;
      fill.setAlphaF(0.13F);
      const double left = map(area, span.from, y.low).x(), right = map(area, span.to, y.low).x();
      const QRectF box(std::min(left, right) - 3, area.top(), std::abs(right - left) + 6, area.height());
      painter.fillRect(box, fill);
      painter.setPen(style.muted);
      painter.setFont(font);
      painter.drawText(QRectF(area.left() + 4, area.top() + 2, area.width() - 8, area.height()),
                       Qt::AlignTop | Qt::AlignRight, span.label);
      painter.setPen(Qt::NoPen);
    }
    for (int i = 0; i < spec.series.size(); ++i) {
      const PlotSeries& series = spec.series[i];
      QColor fill = colorOf(i, style);
      if (series.spread == PlotSeries::Spread::Band) {
        QPolygonF band;
        for (const PlotPoint& p : series.points) {
          if (std::isfinite(p.high)) band << map(area, clampX(p.x), clampY(p.high));
        }
        for (auto p = series.points.crbegin(); p != series.points.crend(); ++p) {
          if (std::isfinite(p->low)) band << map(area, clampX(p->x), clampY(p->low));
        }
        fill.setAlphaF(0.18F);
        painter.setBrush(fill);
        painter.drawPolygon(band);
      }
      if (series.filled && !series.points.isEmpty()) {
        QPolygonF shape;
        const double base = area.bottom();
        shape << QPointF(map(area, clampX(series.points.first().x), y.low).x(), base);
        for (const PlotPoint& p : series.points) {
          const QPointF at = map(area, clampX(p.x), clampY(p.y));
          if (series.shape == PlotSeries::Shape::Steps) shape << QPointF(at.x(), shape.last().y());
          shape << at;
        }
        shape << QPointF(shape.last().x(), base);
        fill.setAlphaF(0.25F);
        painter.setBrush(fill);
        painter.drawPolygon(shape);
      }
    }
    painter.restore();
  }

  /// Beside the corner that a control covers: a square and the name of each series, cut where they do not fit.
  void paintLegend(QPainter& painter, double right, const FigureStyle& style, const QFont& font) const {
    QVector<int> named;
    for (int i = 0; i < spec.series.size(); ++i) {
      if (!spec.series[i].name.isEmpty()) named.append(i);
    }
    if (!spec.legend || spec.corner.isEmpty() || named.isEmpty()) return;
    painter.setFont(font);
    const QFontMetricsF metrics(font);
    const double share = (right - spec.corner.width()) / static_cast<double>(named.size()), box = 8.0;
    double at = spec.corner.width();
    for (const int i : named) {
      const QString name = metrics.elidedText(spec.series[i].name, Qt::ElideRight, std::max(20.0, share - box - 18));
      const double middle = spec.corner.height() / 2.0, wide = metrics.horizontalAdvance(name) + 1.0;
      painter.fillRect(QRectF(at, middle - box / 2, box, box), colorOf(i, style));
      painter.setPen(style.foreground);
      painter.drawText(QRectF(at + box + 4, middle - metrics.height() / 2, wide, metrics.height()), Qt::AlignLeft,
                       name);
      at += box + wide + 16;
    }
  }

  /// A low plot's axis titles, and 2 and 5 between the decades of a logarithmic y axis that shows few of them.
  void paintAxisTexts(QPainter& painter, const QRectF& area, const QSizeF& size, const FigureStyle& style,
                      const QFont& font) const {
    painter.setFont(font);
    const QFontMetricsF metrics(font);
    if (isLow(size)) {
      painter.setPen(style.muted);
      if (spec.corner.isEmpty()) {
        painter.drawText(area.adjusted(5, 1, -4, -1), Qt::AlignLeft | Qt::AlignTop, spec.y.title);
      } else {  // at the end of the line of the legend
        painter.drawText(QRectF(0, 0, area.right(), spec.corner.height()), Qt::AlignRight | Qt::AlignVCenter,
                         spec.y.title);
      }
      painter.drawText(area.adjusted(4, 1, -4, -1), Qt::AlignRight | Qt::AlignBottom, spec.x.title);
    }
    if (!y.log) return;
    const double decades = std::log10(y.high / y.low), decade = area.height() / decades;
    if (decades > 3.0 || decade * 0.3 < metrics.height()) return;
    painter.setPen(style.foreground);
    for (double power = std::floor(std::log10(y.low)); power <= std::log10(y.high); ++power) {
      for (const double unit : {2.0, 5.0}) {
        const double value = unit * std::pow(10.0, power), f = y.fraction(value);
        if (value < y.low * (1.0 - 1e-6) || f > 1.0 + 1e-6) continue;
        const double at = area.bottom() - f * area.height();
        painter.drawText(QRectF(0, at - metrics.height() / 2, area.left() - 7, metrics.height()),
                         Qt::AlignRight | Qt::AlignVCenter, QString::number(value, 'g', 3));
      }
    }
  }

  /// The lines of the plot where they lie in the area.
  QVector<QPolygonF> mapped(const QRectF& area) const {
    QVector<QPolygonF> lines;
    for (const PlotSeries& series : spec.series) {
      QPolygonF line;
      for (const PlotPoint& point : series.points) {
        if (std::isfinite(point.y)) line << map(area, clampX(point.x), clampY(point.y));
      }
      lines.append(line);
    }
    return lines;
  }

  void paintOver(QPainter& painter, const QRectF& area, const FigureStyle& style, const QFont& font) const {
    painter.setFont(font);
    const QFontMetricsF metrics(font);
    QVector<QRectF> ruleLabels;
    if (isLow(chart->size()) && spec.corner.isEmpty()) {
      ruleLabels.append(QRectF(area.topLeft(), QSizeF(metrics.horizontalAdvance(spec.y.title) + 8, metrics.height())));
    }
    for (const PlotRule& rule : spec.rules) {
      const double f = rule.vertical ? x.fraction(rule.at) : y.fraction(rule.at);
      if (!(f >= -1e-6 && f <= 1.0 + 1e-6)) continue;
      painter.setPen(QPen(style.foreground, style.lineWidth * 1.2, rule.dashed ? Qt::DashLine : Qt::SolidLine));
      if (rule.vertical) {
        const double at = area.left() + f * area.width();
        painter.drawLine(QPointF(at, area.top()), QPointF(at, area.bottom()));
        if (rule.label.isEmpty()) continue;
        const QRectF box =
            freeLabelBox(area, at, QSizeF(metrics.horizontalAdvance(rule.label) + 2, metrics.height()),
                         2.0 + (spec.spans.isEmpty() ? 0.0 : metrics.height()), mapped(area), ruleLabels);
        ruleLabels.append(box);
        painter.setPen(style.foreground);
        painter.drawText(box, Qt::AlignCenter | Qt::TextDontClip, rule.label);
      } else {
        const double at = area.bottom() - f * area.height();
        painter.drawLine(QPointF(area.left(), at), QPointF(area.right(), at));
        painter.setPen(style.foreground);
        const bool below = at - metrics.height() < area.top();
        painter.drawText(
            QRectF(area.left() + 4, below ? at + 1 : at - metrics.height() - 1, area.width() - 8, metrics.height()),
            Qt::AlignLeft | Qt::AlignVCenter, rule.label);
      }
    }
    if (!spec.rug.isEmpty()) {
      painter.setPen(QPen(style.accentB, style.lineWidth));
      QVector<QLineF> strokes;
      for (const double value : spec.rug) {
        const double f = x.fraction(value);
        if (f < 0.0 || f > 1.0) continue;
        const double at = area.left() + f * area.width();
        strokes.append(QLineF(at, area.bottom(), at, area.bottom() - 7));
      }
      painter.drawLines(strokes);
    }
    painter.save();
    painter.setClipRect(area.adjusted(-10, -10, 10, 10));
    QVector<QRectF> taken;
    for (int i = 0; i < spec.series.size(); ++i) {
      const PlotSeries& series = spec.series[i];
      const QColor color = colorOf(i, style);
      for (const PlotPoint& p : series.points) {
        if (!std::isfinite(p.y)) continue;
        const double fx = x.fraction(p.x), fy = y.fraction(p.y);
        if (fx < -1e-6 || fx > 1.0 + 1e-6 || fy > 1.0 + 1e-6) continue;
        const QPointF at = map(area, clampX(p.x), clampY(p.y));
        if (series.spread == PlotSeries::Spread::Bars && std::isfinite(p.low) && std::isfinite(p.high)) {
          const QPointF top = map(area, p.x, clampY(p.high)), bottom = map(area, p.x, clampY(p.low));
          painter.setPen(QPen(color, style.lineWidth * 1.2));
          painter.drawLine(top, bottom);
          painter.drawLine(top + QPointF(-3, 0), top + QPointF(3, 0));
          painter.drawLine(bottom + QPointF(-3, 0), bottom + QPointF(3, 0));
        }
        paintMarker(painter, at, p.marker, color, style);
        if (spec.labels) paintLabel(painter, area, at, p.note, metrics, style, taken);
        if (y.log && p.y <= 0.0) {  // no logarithm: an open triangle on the axis
          painter.setPen(QPen(color, style.lineWidth));
          painter.setBrush(Qt::NoBrush);
          painter.drawPolygon(QPolygonF({at + QPointF(-3, -6), at + QPointF(3, -6), at + QPointF(0, -1)}));
        }
      }
    }
    painter.restore();
  }
};

PlotView::PlotView(QWidget* parent) : QWidget(parent), impl_(std::make_unique<Impl>()) {
  setMouseTracking(true);
  setFocusPolicy(Qt::StrongFocus);
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
}

PlotView::~PlotView() = default;

void PlotView::setSpec(PlotSpec spec) {
  impl_->spec = std::move(spec);
  impl_->cacheStale = true;
  if (impl_->cursorSeries >= impl_->spec.series.size() ||
      (impl_->cursorIndex >= 0 && impl_->cursorIndex >= impl_->spec.series[impl_->cursorSeries].points.size())) {
    impl_->cursorSeries = 0;
    impl_->cursorIndex = -1;
  }
  update();
}

const PlotSpec& PlotView::spec() const { return impl_->spec; }

void PlotView::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  const QSizeF size = target.size();
  painter.save();
  painter.setRenderHint(QPainter::Antialiasing);
  painter.fillRect(target, style.background);
  painter.translate(target.topLeft());
  const QFont font = layoutFont(style.font, 0.85);
  if (!impl_->hasPoints()) {
    painter.setPen(style.muted);
    painter.setFont(layoutFont(style.font, 1.0));
    painter.drawText(QRectF(QPointF(12, 12), size - QSizeF(24, 24)), Qt::AlignCenter | Qt::TextWordWrap,
                     impl_->spec.emptyText);
    painter.setFont([&] {
      QFont bold = layoutFont(style.font, 1.0);
      bold.setBold(true);
      return bold;
    }());
    painter.setPen(style.foreground);
    painter.drawText(QRectF(QPointF(4, 4), QSizeF(size.width() - 8, 22)), Qt::AlignHCenter | Qt::AlignTop,
                     impl_->spec.title);
    painter.restore();
    impl_->plotArea = {};
    return;
  }
  impl_->rebuild(size, style);
  const QRectF area = impl_->chart->plotArea();
  impl_->paintUnder(painter, area, style, font);
  impl_->scene.render(&painter, QRectF(QPointF(0, 0), size), QRectF(QPointF(0, 0), size), Qt::IgnoreAspectRatio);
  const double title = Impl::isLow(size) ? QFontMetricsF(font).horizontalAdvance(impl_->spec.y.title) + 16.0 : 0.0;
  impl_->paintLegend(painter, size.width() - title, style, font);
  impl_->paintAxisTexts(painter, area, size, style, font);
  impl_->paintOver(painter, area, style, font);
  painter.restore();
  impl_->plotArea = area.translated(target.topLeft());
}

QPointF PlotView::positionOf(double x, double y) const {
  return impl_->map(impl_->plotArea, impl_->clampX(x), impl_->clampY(y));
}

QString PlotView::pointText(int series, int index) const {
  if (series < 0 || series >= impl_->spec.series.size() || index < 0 ||
      index >= impl_->spec.series[series].points.size())
    return {};
  const PlotSeries& line = impl_->spec.series[series];
  const PlotPoint& point = line.points[index];
  QString text = line.name.isEmpty() ? QString() : line.name + QStringLiteral(": ");
  text += QStringLiteral("%1 %2, %3 %4")
              .arg(impl_->spec.x.title, numberText(point.x), impl_->spec.y.title, numberText(point.y));
  if (std::isfinite(point.low) && std::isfinite(point.high)) {
    text += tr(" (95 % CI %1 to %2)").arg(numberText(point.low), numberText(point.high));
  }
  if (!point.note.isEmpty()) text += QStringLiteral(" · ") + point.note;
  return text;
}

void PlotView::paintEvent(QPaintEvent*) {
  const double ratio = devicePixelRatioF();
  const QSize pixels = size() * ratio;
  const FigureStyle style = FigureStyle::screen(*this);
  if (impl_->cacheStale || impl_->cache.size() != pixels) {
    impl_->cache = QPixmap(pixels);
    impl_->cache.setDevicePixelRatio(ratio);
    QPainter painter(&impl_->cache);
    paint(painter, QRectF(rect()), style);
    impl_->cacheStale = false;
  }
  QPainter painter(this);
  painter.drawPixmap(0, 0, impl_->cache);
  painter.setRenderHint(QPainter::Antialiasing);
  if (impl_->cursorIndex >= 0 && !impl_->plotArea.isEmpty()) {
    const PlotPoint& point = impl_->spec.series[impl_->cursorSeries].points[impl_->cursorIndex];
    const QPointF at = positionOf(point.x, point.y);
    painter.setPen(QPen(style.foreground, 1.0));
    painter.setBrush(Qt::NoBrush);
    painter.drawEllipse(at, 6.5, 6.5);
  }
  if (hasFocus()) {
    painter.setPen(QPen(style.accent, 1.5));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(QRectF(rect()).adjusted(1, 1, -1, -1));
  }
}

void PlotView::moveCursorTo(int series, int index) {
  if (impl_->cursorSeries == series && impl_->cursorIndex == index) return;
  impl_->cursorSeries = series;
  impl_->cursorIndex = index;
  update();
  Q_EMIT pointHovered(series, index, pointText(series, index));
}

void PlotView::mouseMoveEvent(QMouseEvent* event) {
  int bestSeries = 0, bestIndex = -1;
  double best = 14.0 * 14.0;
  if (!impl_->plotArea.isEmpty()) {
    for (int s = 0; s < impl_->spec.series.size(); ++s) {
      const auto& points = impl_->spec.series[s].points;
      for (int i = 0; i < points.size(); ++i) {
        const QPointF d = positionOf(points[i].x, points[i].y) - event->position();
        const double distance = d.x() * d.x() + d.y() * d.y();
        if (distance < best) best = distance, bestSeries = s, bestIndex = i;
      }
    }
  }
  moveCursorTo(bestSeries, bestIndex);
  if (bestIndex >= 0) {
    QToolTip::showText(event->globalPosition().toPoint() + QPoint(12, 12), pointText(bestSeries, bestIndex), this);
  }
}

void PlotView::mousePressEvent(QMouseEvent* event) {
  if (event->button() != Qt::LeftButton || impl_->plotArea.isEmpty()) return;
  if (impl_->cursorIndex >= 0) Q_EMIT pointActivated(impl_->cursorSeries, impl_->cursorIndex);
  const QRectF& area = impl_->plotArea;
  if (area.contains(event->position())) {
    Q_EMIT positionClicked(impl_->x.value((event->position().x() - area.left()) / area.width()),
                           impl_->y.value((area.bottom() - event->position().y()) / area.height()));
  }
}

void PlotView::leaveEvent(QEvent*) { moveCursorTo(impl_->cursorSeries, -1); }

void PlotView::keyPressEvent(QKeyEvent* event) {
  const auto& all = impl_->spec.series;
  if (all.isEmpty()) return QWidget::keyPressEvent(event);
  int series = std::min(impl_->cursorSeries, static_cast<int>(all.size()) - 1), index = impl_->cursorIndex;
  const int step = event->modifiers().testFlag(Qt::ShiftModifier) ? 10 : 1;
  switch (event->key()) {
    case Qt::Key_Left:
      index -= step;
      break;
    case Qt::Key_Right:
      index += step;
      break;
    case Qt::Key_Home:
      index = 0;
      break;
    case Qt::Key_End:
      index = static_cast<int>(all[series].points.size()) - 1;
      break;
    case Qt::Key_Up:
      series = (series + static_cast<int>(all.size()) - 1) % static_cast<int>(all.size());
      break;
    case Qt::Key_Down:
      series = (series + 1) % static_cast<int>(all.size());
      break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
      if (index >= 0) Q_EMIT pointActivated(series, index);
      return;
    default:
      return QWidget::keyPressEvent(event);
  }
  if (all[series].points.isEmpty()) return;
  moveCursorTo(series, std::clamp(index, 0, static_cast<int>(all[series].points.size()) - 1));
}

void PlotView::changeEvent(QEvent* event) {
  if (event->type() == QEvent::PaletteChange || event->type() == QEvent::FontChange ||
      event->type() == QEvent::StyleChange) {
    impl_->cacheStale = true;
    update();
  }
  QWidget::changeEvent(event);
}

void PlotView::focusInEvent(QFocusEvent* event) {
  QWidget::focusInEvent(event);
  update();
}

void PlotView::focusOutEvent(QFocusEvent* event) {
  QWidget::focusOutEvent(event);
  update();
}

}  // namespace qs
