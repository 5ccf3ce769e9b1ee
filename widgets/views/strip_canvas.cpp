#include "widgets/views/strip_canvas.h"

#include <QKeyEvent>
#include <QMouseEvent>
#include <QWheelEvent>
#include <algorithm>

#include "widgets/paint/axes.h"

namespace qs {

TokenStripCanvas::TokenStripCanvas(const QString& id, QWidget* parent) : PanelCanvas(id, parent) {
  setToolTip(
      tr("Click a token, or move with the arrows and press Enter, to see what it attends to · wheel: scroll · Z: "
         "enlarge"));
  setToolTipDuration(6000);
}

QString TokenStripCanvas::describe(qint64 token) const {
  QString text = tr("tok %1 '%2'").arg(token).arg(panel_.tokens.value(token));
  if (token >= 0 && static_cast<std::size_t>(token) < panel_.values.size())
    text += QStringLiteral(" | %1").arg(number_text(panel_.values[static_cast<std::size_t>(token)], 5));
  return text;
}

void TokenStripCanvas::mousePressEvent(QMouseEvent* event) {
  const qint64 token = panel_.tokenAt(event->position());
  if (token < 0 || event->button() != Qt::LeftButton) return;
  panel_.cursor = token;
  announceValue(describe(token));
  Q_EMIT tokenChosen(token);
  update();
}

void TokenStripCanvas::mouseMoveEvent(QMouseEvent* event) {
  const qint64 token = panel_.tokenAt(event->position());
  if (token >= 0) Q_EMIT readout(describe(token));
}

void TokenStripCanvas::wheelEvent(QWheelEvent* event) {
  panel_.follow = false;
  panel_.scrollLines(event->angleDelta().y() > 0 ? -2 : 2);
  update();
  event->accept();
}

void TokenStripCanvas::keyPressEvent(QKeyEvent* event) {
  const qint64 from = panel_.cursor >= 0 ? panel_.cursor : std::max<qint64>(0, panel_.selected);
  const qint64 step = event->modifiers() & Qt::ShiftModifier ? 10 : 1;
  qint64 to = from;
  switch (event->key()) {
    case Qt::Key_Left:
      to = from - step;
      break;
    case Qt::Key_Right:
      to = from + step;
      break;
    case Qt::Key_Home:
      to = 0;
      break;
    case Qt::Key_End:
      to = panel_.tokens.size() - 1;
      break;
    case Qt::Key_Return:
    case Qt::Key_Enter:
    case Qt::Key_Space:
      if (!panel_.isEmpty()) Q_EMIT tokenChosen(from);
      return;
    default:
      if (!commonKey(event)) PanelCanvas::keyPressEvent(event);
      return;
  }
  if (panel_.isEmpty()) return;
  panel_.follow = true;
  panel_.cursor = std::clamp<qint64>(to, 0, panel_.tokens.size() - 1);
  announceValue(describe(panel_.cursor));
  update();
}

}  // namespace qs
