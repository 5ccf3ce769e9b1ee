#include "widgets/views/line_canvas.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QWheelEvent>
#include <algorithm>
#include <cmath>

namespace qs {

LineCanvas::LineCanvas(const QString& id, QWidget* parent) : PanelCanvas(id, parent) {
  setToolTip(tr(
      "Wheel: zoom · drag: pan · drag the dashed line: threshold · double click or F: fit\n"
      "Left and Right: data cursor (Shift: by 10), Home, End · Up and Down: threshold · Enter: choose · Z: enlarge"));
  setToolTipDuration(6000);
}

void LineCanvas::fit() {
  panel_.fit();
  update();
  Q_EMIT viewportChanged();
}

void LineCanvas::zoomBy(double factor) {
  panel_.zoom(factor, panel_.viewport().center().x());
  update();
  Q_EMIT viewportChanged();
}

void LineCanvas::wheelEvent(QWheelEvent* event) {
  const QPoint delta = event->angleDelta();
  const double steps = (delta.y() != 0 ? delta.y() : delta.x()) / 120.0;
  if (panel_.isEmpty()) return event->ignore();
  if (event->modifiers() & Qt::ShiftModifier) {
    panel_.pan(-steps * panel_.viewport().width() * 0.1);
  } else {
    panel_.zoom(std::pow(1.25, steps), panel_.axisAt(event->position().x(), body()));
  }
  event->accept();
  update();
  Q_EMIT viewportChanged();
}

void LineCanvas::mousePressEvent(QMouseEvent* event) {
  if (event->button() != Qt::LeftButton || panel_.isEmpty() || !body().contains(event->position())) return;
  pressed_ = event->position();
  moved_ = false;
  viewport_at_press_ = panel_.viewport();
  threshold_ = panel_.threshold && std::fabs(panel_.yOf(*panel_.threshold, body()) - pressed_.y()) < 6;
  panning_ = !threshold_;
}

void LineCanvas::mouseMoveEvent(QMouseEvent* event) {
  const QPointF at = event->position();
  if (threshold_) {
    Q_EMIT thresholdDragged(panel_.valueAt(at.y(), body()));
    return;
  }
  if (panning_) {
    if ((at - pressed_).manhattanLength() > 4) moved_ = true;
    const double by = -(at.x() - pressed_.x()) / body().width() * viewport_at_press_.width();
    if (moved_) panel_.setViewport(viewport_at_press_.left() + by, viewport_at_press_.right() + by);
    update();
    Q_EMIT viewportChanged();
    return;
  }
  const bool near =
      panel_.threshold && !panel_.isEmpty() && std::fabs(panel_.yOf(*panel_.threshold, body()) - at.y()) < 6;
  setCursor(near ? Qt::SizeVerCursor : Qt::ArrowCursor);
  if (const auto index = panel_.indexAt(at.x(), body()); index && describe && body().contains(at))
    Q_EMIT readout(describe(*index));
}

void LineCanvas::mouseReleaseEvent(QMouseEvent* event) {
  if (panning_ && !moved_) {
    if (const auto index = panel_.indexAt(event->position().x(), body())) {
      moveCursor(*index);
      Q_EMIT activated(*index);
    }
  }
  panning_ = threshold_ = false;
}

void LineCanvas::mouseDoubleClickEvent(QMouseEvent*) { fit(); }

void LineCanvas::moveCursor(qint64 to) {
  if (panel_.isEmpty()) return;
  const auto last = static_cast<std::int64_t>(panel_.series.front().y.size()) - 1;
  panel_.cursor = std::clamp<std::int64_t>(to, 0, last);
  if (describe) announceValue(describe(*panel_.cursor));
  update();
}

void LineCanvas::keyPressEvent(QKeyEvent* event) {
  const qint64 step = event->modifiers() & Qt::ShiftModifier ? 10 : 1;
  const qint64 from = panel_.cursor.value_or(0);
  switch (event->key()) {
    case Qt::Key_Left:
      return moveCursor(from - step);
    case Qt::Key_Right:
      return moveCursor(panel_.cursor ? from + step : 0);
    case Qt::Key_Home:
      return moveCursor(0);
    case Qt::Key_End:
      return moveCursor(std::numeric_limits<qint64>::max() / 2);
    case Qt::Key_Up:
    case Qt::Key_Down:
      if (panel_.threshold)
        Q_EMIT thresholdDragged(*panel_.threshold *
                                std::pow(1.05, (event->key() == Qt::Key_Up ? 1 : -1) * static_cast<double>(step)));
      return;
    case Qt::Key_Return:
    case Qt::Key_Enter:
      if (panel_.cursor) Q_EMIT activated(*panel_.cursor);
      return;
    case Qt::Key_Plus:
    case Qt::Key_Equal:
      return zoomBy(1.25);
    case Qt::Key_Minus:
      return zoomBy(0.8);
    default:
      break;
  }
  if (!commonKey(event)) PanelCanvas::keyPressEvent(event);
}

}  // namespace qs
