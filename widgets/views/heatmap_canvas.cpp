#include "widgets/views/heatmap_canvas.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QPainter>
#include <QWheelEvent>
#include <algorithm>
#include <cmath>

namespace qs {

HeatmapCanvas::HeatmapCanvas(const QString& id, QWidget* parent) : PanelCanvas(id, parent) {
  setToolTip(
      tr("Wheel: zoom at the cursor · Ctrl+wheel: zoom across · Shift+wheel: pan across · drag: pan\n"
         "Right drag or R: box zoom · Ctrl+drag or Space: brush · double click or F: fit · Esc: clear the brush\n"
         "Arrows: data cursor (Shift: by 10), Page Up and Down, Home, End · Enter: choose · P: pin · L: log scale · Z: "
         "enlarge"));
  setToolTipDuration(6000);
  tile_timer_.setSingleShot(true);
  tile_timer_.setInterval(60);
  connect(&tile_timer_, &QTimer::timeout, this, [this] {
    if (const QRect cells = panel_.missingTile(); !cells.isEmpty()) Q_EMIT tileWanted(cells);
  });
  connect(this, &PanelCanvas::viewportChanged, this, &HeatmapCanvas::askForTile);
}

void HeatmapCanvas::askForTile() {
  if (!panel_.missingTile().isEmpty()) tile_timer_.start();
}

void HeatmapCanvas::fit() {
  panel_.fit();
  update();
  Q_EMIT viewportChanged();
}

void HeatmapCanvas::zoomBy(double factor) {
  const QPointF center = panel_.cursor ? QPointF(static_cast<double>(panel_.cursor->col) + 0.5,
                                                 static_cast<double>(panel_.cursor->row) + 0.5)
                                       : panel_.viewport().center();
  panel_.zoom(factor, center, false);
  update();
  Q_EMIT viewportChanged();
}

void HeatmapCanvas::wheelEvent(QWheelEvent* event) {
  const QPoint delta = event->angleDelta();
  const double steps = (delta.y() != 0 ? delta.y() : delta.x()) / 120.0;
  if (panel_.isEmpty() || steps == 0) return event->ignore();
  if (event->modifiers() & Qt::ShiftModifier) {
    panel_.pan(-steps * panel_.viewport().width() * 0.1, 0);
  } else {
    panel_.zoom(std::pow(1.25, steps), panel_.toCells(event->position(), body()),
                event->modifiers() & Qt::ControlModifier);
  }
  event->accept();
  update();
  Q_EMIT viewportChanged();
}

void HeatmapCanvas::mousePressEvent(QMouseEvent* event) {
  pressed_ = at_ = event->position();
  moved_ = false;
  viewport_at_press_ = panel_.viewport();
  scale_at_press_ = panel_.scale;
  const QRectF bar = panel_.colorBarRect(rect(), figureStyle());
  if (panel_.isEmpty()) return;
  if (bar.contains(pressed_) && event->button() == Qt::LeftButton) {
    drag_ = pressed_.y() < bar.center().y() ? Drag::RangeHigh : Drag::RangeLow;
  } else if (!body().contains(pressed_)) {
    return;
  } else if (event->button() == Qt::RightButton || (event->button() == Qt::LeftButton && box_zoom_armed_)) {
    drag_ = Drag::BoxZoom;
  } else if (event->button() == Qt::LeftButton) {
    drag_ = event->modifiers() & Qt::ControlModifier ? Drag::Brush : Drag::Pan;
  }
}

QRectF HeatmapCanvas::cellsOfDrag() const {
  const QPointF a = panel_.toCells(pressed_, body()), b = panel_.toCells(at_, body());
  const double left = std::max(0.0, std::floor(std::min(a.x(), b.x()))),
               top = std::max(0.0, std::floor(std::min(a.y(), b.y())));
  const double right = std::min(static_cast<double>(panel_.cols()), std::floor(std::max(a.x(), b.x())) + 1);
  const double bottom = std::min(static_cast<double>(panel_.rows()), std::floor(std::max(a.y(), b.y())) + 1);
  return {left, top, right - left, bottom - top};
}

void HeatmapCanvas::mouseMoveEvent(QMouseEvent* event) {
  at_ = event->position();
  if (drag_ != Drag::None && (at_ - pressed_).manhattanLength() > 4) moved_ = true;
  const QRectF area = body();
  if (drag_ == Drag::None) {
    if (const auto cell = panel_.cellAt(at_, rect(), figureStyle()); cell && describe) Q_EMIT readout(describe(*cell));
    setCursor(panel_.colorBarRect(rect(), figureStyle()).contains(at_) && !panel_.isEmpty() ? Qt::SizeVerCursor
              : area.contains(at_)                                                          ? Qt::CrossCursor
                                                                                            : Qt::ArrowCursor);
    return;
  }
  if (!moved_) return;
  const QPointF by = at_ - pressed_;
  if (drag_ == Drag::Pan) {
    setCursor(Qt::ClosedHandCursor);
    panel_.setViewport(viewport_at_press_.translated(-by.x() / area.width() * viewport_at_press_.width(),
                                                     -by.y() / area.height() * viewport_at_press_.height()));
    Q_EMIT viewportChanged();
  } else if (drag_ == Drag::RangeLow || drag_ == Drag::RangeHigh) {
    const double shift = by.y() / std::max(1.0, area.height());
    double low = scale_at_press_.low, high = scale_at_press_.high;
    const bool logarithmic = scale_at_press_.kind == analysis::ScaleKind::Log10;
    if (scale_at_press_.is_signed) {
      high *= std::pow(4.0, drag_ == Drag::RangeHigh ? shift : -shift);
      low = -high;
    } else if (logarithmic) {
      (drag_ == Drag::RangeHigh ? high : low) *= std::pow(scale_at_press_.high / scale_at_press_.low, shift);
    } else {
      (drag_ == Drag::RangeHigh ? high : low) += shift * (scale_at_press_.high - scale_at_press_.low);
    }
    if (low < high) Q_EMIT rangeDragged(low, high);
  }
  update();
}

void HeatmapCanvas::mouseReleaseEvent(QMouseEvent*) {
  const Drag drag = std::exchange(drag_, Drag::None);
  if (drag == Drag::BoxZoom && moved_) {
    panel_.setViewport(cellsOfDrag());
    box_zoom_armed_ = false;
    Q_EMIT viewportChanged();
  } else if (drag == Drag::Brush) {
    panel_.brush = cellsOfDrag();
    Q_EMIT brushed(panel_.brush.toRect());
  } else if (drag == Drag::Pan && !moved_) {
    if (const auto cell = panel_.cellAt(at_, rect(), figureStyle())) {
      setCursorCell(*cell);
      Q_EMIT activated(cell->row, cell->col);
    }
  }
  unsetCursor();
  update();
}

void HeatmapCanvas::mouseDoubleClickEvent(QMouseEvent* event) {
  if (event->button() == Qt::LeftButton) fit();
}

void HeatmapCanvas::leaveEvent(QEvent*) {
  if (panel_.cursor && describe) Q_EMIT readout(describe(*panel_.cursor));
}

void HeatmapCanvas::setCursorCell(Cell cell) {
  if (panel_.isEmpty()) return;
  cell.row = std::clamp<std::int64_t>(cell.row, 0, panel_.rows() - 1);
  cell.col = std::clamp<std::int64_t>(cell.col, 0, panel_.cols() - 1);
  panel_.cursor = cell;
  QRectF v = panel_.viewport();
  const auto x = static_cast<double>(cell.col), y = static_cast<double>(cell.row);
  if (x < v.left() || x + 1 > v.right()) v.moveLeft(x < v.left() ? x : x + 1 - v.width());
  if (y < v.top() || y + 1 > v.bottom()) v.moveTop(y < v.top() ? y : y + 1 - v.height());
  if (v != panel_.viewport()) {
    panel_.setViewport(v);
    Q_EMIT viewportChanged();
  }
  if (describe) announceValue(describe(cell));
  update();
}

void HeatmapCanvas::moveCursor(qint64 rows, qint64 cols) {
  const Cell from = panel_.cursor.value_or(Cell{static_cast<std::int64_t>(panel_.viewport().center().y()),
                                                static_cast<std::int64_t>(panel_.viewport().center().x())});
  setCursorCell(panel_.cursor ? Cell{from.row + rows, from.col + cols} : from);
}

void HeatmapCanvas::keyPressEvent(QKeyEvent* event) {
  const int step = event->modifiers() & Qt::ShiftModifier ? 10 : 1;
  const auto page = static_cast<qint64>(std::max(1.0, panel_.viewport().height()));
  switch (event->key()) {
    case Qt::Key_Left:
      return moveCursor(0, -step);
    case Qt::Key_Right:
      return moveCursor(0, step);
    case Qt::Key_Up:
      return moveCursor(-step, 0);
    case Qt::Key_Down:
      return moveCursor(step, 0);
    case Qt::Key_PageUp:
      return moveCursor(-page, 0);
    case Qt::Key_PageDown:
      return moveCursor(page, 0);
    case Qt::Key_Home:
      return moveCursor(0, -panel_.cols());
    case Qt::Key_End:
      return moveCursor(0, panel_.cols());
    case Qt::Key_Return:
    case Qt::Key_Enter:
      if (panel_.cursor) Q_EMIT activated(panel_.cursor->row, panel_.cursor->col);
      return;
    case Qt::Key_Space:
      if (panel_.cursor) {
        const QRectF cell(static_cast<double>(panel_.cursor->col), static_cast<double>(panel_.cursor->row), 1, 1);
        if (!(event->modifiers() & Qt::ShiftModifier) || brush_anchor_.isEmpty()) brush_anchor_ = cell;
        panel_.brush = brush_anchor_.united(cell);
        Q_EMIT brushed(panel_.brush.toRect());
        update();
      }
      return;
    case Qt::Key_R:
      if (event->modifiers() == Qt::NoModifier) {
        box_zoom_armed_ = true;
        setCursor(Qt::CrossCursor);
        return;
      }
      break;
    case Qt::Key_P:
      if (event->modifiers() == Qt::NoModifier && panel_.cursor) {
        Q_EMIT pinned(panel_.cursor->row, panel_.cursor->col);
        return;
      }
      break;
    case Qt::Key_Plus:
    case Qt::Key_Equal:
      return zoomBy(1.25);
    case Qt::Key_Minus:
      return zoomBy(0.8);
    default:
      break;
  }
  if (event->key() == Qt::Key_Escape) {
    panel_.brush = {};
    box_zoom_armed_ = false;
    update();
  }
  if (!commonKey(event)) PanelCanvas::keyPressEvent(event);
}

void HeatmapCanvas::paintEvent(QPaintEvent* event) {
  PanelCanvas::paintEvent(event);
  if ((drag_ == Drag::BoxZoom || drag_ == Drag::Brush) && moved_) {
    QPainter painter(this);
    painter.setClipRect(body());
    painter.setPen(QPen(Qt::white, 1, Qt::DashLine));
    painter.setBrush(QColor(255, 255, 255, 50));
    painter.drawRect(QRectF(pressed_, at_).normalized());
  }
}

}  // namespace qs
