#pragma once

#include <functional>

#include "widgets/paint/line_panel.h"
#include "widgets/views/panel_canvas.h"

namespace qs {

/// Mouse and keys of a line plot: wheel zoom, drag pan, a data cursor by the arrows, a threshold that can be dragged.
class LineCanvas : public PanelCanvas {
  Q_OBJECT
 public:
  LineCanvas(const QString& id, QWidget* parent);
  LinePanel& panel() override { return panel_; }
  using PanelCanvas::panel;
  std::function<QString(qint64)> describe;  ///< the readout of a point of the first series
  void fit() override;
  void zoomBy(double factor) override;

 Q_SIGNALS:
  void thresholdDragged(double value);
  void activated(qint64 index);

 protected:
  void wheelEvent(QWheelEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  QRectF body() const { return panel_.bodyRect(rect(), figureStyle()); }
  void moveCursor(qint64 to);
  LinePanel panel_;
  bool panning_ = false, threshold_ = false, moved_ = false;
  QPointF pressed_;
  QRectF viewport_at_press_;
};

}  // namespace qs
