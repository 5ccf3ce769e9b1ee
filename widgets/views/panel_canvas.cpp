#include "widgets/views/panel_canvas.h"

#include <QAccessible>
#include <QAccessibleWidget>
#include <QKeyEvent>
#include <QPainter>

namespace qs {
namespace {

class CanvasAccessible : public QAccessibleWidget {
 public:
  explicit CanvasAccessible(PanelCanvas* canvas) : QAccessibleWidget(canvas, QAccessible::Chart) {}
  QString text(QAccessible::Text kind) const override {
    const auto* canvas = static_cast<const PanelCanvas*>(widget());
    if (kind == QAccessible::Name)
      return canvas->panel().title.isEmpty() ? canvas->accessibleName() : canvas->panel().title;
    if (kind == QAccessible::Description) return canvas->panel().summary();
    if (kind == QAccessible::Value) return canvas->property("readout").toString();
    return QAccessibleWidget::text(kind);
  }
};

QAccessibleInterface* canvasInterface(const QString& className, QObject* object) {
  if (className != QLatin1String("qs::PanelCanvas")) return nullptr;
  auto* canvas = qobject_cast<PanelCanvas*>(object);
  return canvas ? new CanvasAccessible(canvas) : nullptr;
}

}  // namespace

PanelCanvas::PanelCanvas(const QString& id, QWidget* parent) : QWidget(parent) {
  static const bool installed = [] {
    QAccessible::installFactory(canvasInterface);
    return true;
  }();
  Q_UNUSED(installed)
  setObjectName(id);
  setAccessibleName(id);
  setFocusPolicy(Qt::StrongFocus);
  setMouseTracking(true);
  setBackgroundRole(QPalette::Base);
  setAutoFillBackground(true);
}

void PanelCanvas::paintEvent(QPaintEvent*) {
  QPainter painter(this);
  panel().paint(painter, rect(), figureStyle());
  if (hasFocus()) {
    painter.setPen(QPen(palette().color(QPalette::Highlight), 2));
    painter.setBrush(Qt::NoBrush);
    painter.drawRect(QRectF(rect()).adjusted(1, 1, -1, -1));
  }
}

void PanelCanvas::focusInEvent(QFocusEvent* event) {
  QWidget::focusInEvent(event);
  Q_EMIT focused();
  update();
}

void PanelCanvas::focusOutEvent(QFocusEvent* event) {
  QWidget::focusOutEvent(event);
  update();
}

bool PanelCanvas::commonKey(QKeyEvent* event) {
  if (event->modifiers() & (Qt::ControlModifier | Qt::AltModifier | Qt::MetaModifier)) return false;
  switch (event->key()) {
    case Qt::Key_1:
    case Qt::Key_2:
    case Qt::Key_3:
    case Qt::Key_4:
      Q_EMIT modeKey(event->key() - Qt::Key_1);
      return true;
    case Qt::Key_B:
      Q_EMIT modeKey(4);
      return true;
    case Qt::Key_L:
      Q_EMIT logKey();
      return true;
    case Qt::Key_F:
      fit();
      return true;
    case Qt::Key_Z:
      Q_EMIT maximizeRequested();
      return true;
    case Qt::Key_Escape:
      Q_EMIT clearRequested();
      return true;
    default:
      return false;
  }
}

void PanelCanvas::announceValue(const QString& text) {
  setProperty("readout", text);
  if (QAccessible::isActive()) {
    QAccessibleValueChangeEvent event(this, text);
    QAccessible::updateAccessibility(&event);
  }
  Q_EMIT readout(text);
}

}  // namespace qs
