#include "widgets/views/layer_alpha_map.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <algorithm>
#include <cmath>

#include "analysis/color_scale.h"
#include "widgets/paint/axes.h"
#include "widgets/paint/color_bar.h"
#include "widgets/paint/color_map.h"

namespace qs {

namespace {

double smallest(const std::vector<double>& row) {
  double low = std::numeric_limits<double>::infinity();
  for (const double value : row) {
    if (std::isfinite(value)) low = std::min(low, value);
  }
  return low;
}

}  // namespace

LayerAlphaMap::LayerAlphaMap(QWidget* parent) : QWidget(parent) {
  setMouseTracking(true);
  setFocusPolicy(Qt::StrongFocus);
  setSizePolicy(QSizePolicy::Expanding, QSizePolicy::Expanding);
}

void LayerAlphaMap::setMap(QVector<double> alphas, std::vector<std::vector<double>> values, std::vector<int> path,
                           const QString& title) {
  alphas_ = std::move(alphas);
  values_ = std::move(values);
  path_ = std::move(path);
  title_ = title;
  cursor_layer_ = std::min(cursor_layer_, static_cast<int>(values_.size()) - 1);
  cursor_column_ = std::min(cursor_column_, static_cast<int>(alphas_.size()) - 1);
  update();
}

void LayerAlphaMap::setRelative(bool relative) {
  relative_ = relative;
  update();
}

void LayerAlphaMap::setAlpha(double alpha) {
  alpha_ = alpha;
  update();
}

void LayerAlphaMap::setLayer(int layer) {
  layer_ = layer;
  update();
}

void LayerAlphaMap::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  painter.fillRect(target, style.background);
  painter.setFont(style.font);
  const QFontMetricsF metrics(style.font);
  QFont bold = style.font;
  bold.setBold(true);
  painter.setFont(bold);
  painter.setPen(style.foreground);
  painter.drawText(QRectF(target.left() + 4, target.top() + 4, target.width() - 8, metrics.height() + 2),
                   Qt::AlignHCenter | Qt::AlignTop, title_);
  painter.setFont(style.font);
  cells_ = {};
  analysis::ColorScale scale;
  scale.kind = analysis::ScaleKind::Log10;
  double low = std::numeric_limits<double>::infinity(), high = 0.0;
  for (const auto& row : values_) {
    const double base = relative_ ? smallest(row) : 1.0;
    for (const double value : row) {
      if (!std::isfinite(value) || !(value > 0.0) || !(base > 0.0)) continue;
      low = std::min(low, value / base);
      high = std::max(high, value / base);
    }
  }
  if (values_.empty() || alphas_.isEmpty() || !(high > 0.0)) {
    painter.setPen(style.muted);
    painter.drawText(target.adjusted(12, 12, -12, -12), Qt::AlignCenter | Qt::TextWordWrap,
                     tr("The local error of each layer appears here as alphas finish."));
    painter.restore();
    return;
  }
  scale.low = low;
  scale.high = std::max(high, low * 1.01);
  if (scale.high < scale.low * 10.0) scale.kind = analysis::ScaleKind::Linear;
  const double bar = color_bar_width(style, scale, true);
  const double left = target.left() + metrics.horizontalAdvance(QStringLiteral("00")) + metrics.height() + 16;
  const QRectF area(left, target.top() + metrics.height() + 12, target.right() - bar - 12 - left,
                    target.height() - 3.4 * metrics.height() - 18);
  if (area.width() < 10 || area.height() < 10) {
    painter.restore();
    return;
  }
  cells_ = area;
  const auto columns = static_cast<int>(alphas_.size()), layers = static_cast<int>(values_.size());
  const double w = area.width() / columns, h = area.height() / layers;
  QImage image(columns, layers, QImage::Format_RGB32);
  for (int layer = 0; layer < layers; ++layer) {
    const auto& row = values_[static_cast<std::size_t>(layer)];
    const double base = relative_ ? smallest(row) : 1.0;
    for (int c = 0; c < columns; ++c) {
      const double value = row[static_cast<std::size_t>(c)] / base;
      image.setPixel(
          c, layer,
          std::isfinite(value) ? ColorMap::get(MapName::Viridis).color(scale.position(value)) : style.grid.rgb());
    }
  }
  painter.setRenderHint(QPainter::SmoothPixmapTransform, false);
  painter.drawImage(area, image);
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setPen(QPen(style.muted, style.lineWidth));
  painter.setBrush(Qt::NoBrush);
  painter.drawRect(area);

  QPolygonF path;
  for (int layer = 0; layer < layers && layer < static_cast<int>(path_.size()); ++layer) {
    if (path_[static_cast<std::size_t>(layer)] >= 0)
      path << QPointF(area.left() + (path_[static_cast<std::size_t>(layer)] + 0.5) * w, area.top() + (layer + 0.5) * h);
  }
  painter.setPen(QPen(Qt::white, style.lineWidth * 4.0));
  painter.drawPolyline(path);
  painter.setPen(QPen(QColor(0xd5, 0x5e, 0x00), style.lineWidth * 2.0));
  painter.drawPolyline(path);
  painter.setBrush(QColor(0xd5, 0x5e, 0x00));
  for (const QPointF& at : path) painter.drawEllipse(at, 2.6, 2.6);
  painter.setBrush(Qt::NoBrush);
  if (alpha_ >= 0.0 && columns > 1) {
    const auto after = std::upper_bound(alphas_.begin(), alphas_.end(), alpha_ + 1e-9);
    const int i = std::clamp(static_cast<int>(after - alphas_.begin()) - 1, 0, columns - 2);
    const double share = std::clamp((alpha_ - alphas_[i]) / (alphas_[i + 1] - alphas_[i]), -0.5, 1.5);
    const double at = std::clamp(area.left() + (i + 0.5 + share) * w, area.left(), area.right());
    painter.setPen(QPen(style.foreground, style.lineWidth * 1.3, Qt::DashLine));
    painter.drawLine(QPointF(at, area.top()), QPointF(at, area.bottom()));
  }
  if (layer_ >= 0 && layer_ < layers) {
    painter.setPen(QPen(style.accent, style.lineWidth * 1.8));
    painter.drawRect(QRectF(area.left(), area.top() + layer_ * h, area.width(), h));
  }
  std::vector<AxisTick> ticks;
  for (int c = 0; c < columns; ++c) ticks.push_back({area.left() + (c + 0.5) * w, number_text(alphas_[c], 3)});
  paint_horizontal_axis(painter, style, area.left(), area.right(), area.bottom(), ticks, tr("alpha"));
  ticks.clear();
  for (const double layer : index_ticks(0, layers - 1, std::max(2, static_cast<int>(area.height() / 18)))) {
    ticks.push_back({area.top() + (layer + 0.5) * h, QString::number(static_cast<int>(layer))});
  }
  paint_vertical_axis(painter, style, area.top(), area.bottom(), area.left(), ticks, tr("layer"),
                      target.left() + 4 + metrics.height() / 2);
  paint_color_bar(painter, style, QRectF(area.right() + 10, area.top(), bar, area.height()), scale, MapName::Viridis,
                  relative_ ? tr("error / best of the layer") : tr("output MSE"));
  painter.restore();
}

void LayerAlphaMap::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  const FigureStyle style = FigureStyle::screen(*this);
  paint(painter, QRectF(rect()), style);
  if (cursor_layer_ >= 0 && cursor_column_ >= 0 && !cells_.isEmpty()) {
    const double w = cells_.width() / static_cast<double>(alphas_.size()),
                 h = cells_.height() / static_cast<double>(values_.size());
    painter.setPen(QPen(Qt::white, 3));
    const QRectF cell(cells_.left() + cursor_column_ * w, cells_.top() + cursor_layer_ * h, w, h);
    painter.drawRect(cell);
    painter.setPen(QPen(Qt::black, 1));
    painter.drawRect(cell);
  }
  if (hasFocus()) {
    painter.setPen(QPen(style.accent, 1.5));
    painter.drawRect(QRectF(rect()).adjusted(1, 1, -1, -1));
  }
}

bool LayerAlphaMap::cellAt(const QPointF& position, int& layer, int& column) const {
  if (cells_.isEmpty() || !cells_.contains(position)) return false;
  column =
      std::min(static_cast<int>((position.x() - cells_.left()) / cells_.width() * static_cast<double>(alphas_.size())),
               static_cast<int>(alphas_.size()) - 1);
  layer =
      std::min(static_cast<int>((position.y() - cells_.top()) / cells_.height() * static_cast<double>(values_.size())),
               static_cast<int>(values_.size()) - 1);
  return true;
}

void LayerAlphaMap::moveCursorTo(int layer, int column) {
  cursor_layer_ = layer;
  cursor_column_ = column;
  update();
  const auto& row = values_[static_cast<std::size_t>(layer)];
  const double value = row[static_cast<std::size_t>(column)];
  const int best = static_cast<std::size_t>(layer) < path_.size() ? path_[static_cast<std::size_t>(layer)] : -1;
  QString text = tr("layer %1, alpha %2: local error %3").arg(layer).arg(alphas_[column]).arg(value, 0, 'g', 5);
  if (best >= 0)
    text += tr(" (best %1 at alpha %2)").arg(row[static_cast<std::size_t>(best)], 0, 'g', 5).arg(alphas_[best]);
  Q_EMIT readout(text);
}

void LayerAlphaMap::mouseMoveEvent(QMouseEvent* event) {
  int layer = 0, column = 0;
  if (cellAt(event->position(), layer, column) && (layer != cursor_layer_ || column != cursor_column_))
    moveCursorTo(layer, column);
}

void LayerAlphaMap::mousePressEvent(QMouseEvent* event) {
  int layer = 0, column = 0;
  if (event->button() == Qt::LeftButton && cellAt(event->position(), layer, column))
    Q_EMIT cellActivated(layer, alphas_[column]);
}

void LayerAlphaMap::keyPressEvent(QKeyEvent* event) {
  if (values_.empty() || alphas_.isEmpty()) return QWidget::keyPressEvent(event);
  int layer = std::max(0, cursor_layer_), column = std::max(0, cursor_column_);
  switch (event->key()) {
    case Qt::Key_Left:
      --column;
      break;
    case Qt::Key_Right:
      ++column;
      break;
    case Qt::Key_Up:
      --layer;
      break;
    case Qt::Key_Down:
      ++layer;
      break;
    case Qt::Key_Home:
      column = 0;
      break;
    case Qt::Key_End:
      column = static_cast<int>(alphas_.size()) - 1;
      break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
      Q_EMIT cellActivated(layer, alphas_[column]);
      return;
    default:
      return QWidget::keyPressEvent(event);
  }
  moveCursorTo(std::clamp(layer, 0, static_cast<int>(values_.size()) - 1),
               std::clamp(column, 0, static_cast<int>(alphas_.size()) - 1));
}

void LayerAlphaMap::focusInEvent(QFocusEvent* event) {
  QWidget::focusInEvent(event);
  update();
}

void LayerAlphaMap::focusOutEvent(QFocusEvent* event) {
  QWidget::focusOutEvent(event);
  update();
}

}  // namespace qs
