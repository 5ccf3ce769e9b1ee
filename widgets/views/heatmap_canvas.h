#pragma once

#include <QTimer>
#include <functional>

#include "widgets/paint/heatmap_panel.h"
#include "widgets/views/panel_canvas.h"

namespace qs {

/// Mouse and keys of a heatmap (the tool tip lists them). What it reads out is exact data.
class HeatmapCanvas : public PanelCanvas {
  Q_OBJECT
 public:
  HeatmapCanvas(const QString& id, QWidget* parent);
  HeatmapPanel& panel() override { return panel_; }
  using PanelCanvas::panel;
  std::function<QString(Cell)> describe;  ///< the readout of a cell
  void fit() override;
  void zoomBy(double factor) override;
  void askForTile();              ///< soon: tileWanted when the viewport lacks exact cells
  void setCursorCell(Cell cell);  ///< moves the data cursor, scrolls to it and reads it out

 Q_SIGNALS:
  void activated(qint64 row, qint64 col);  ///< click or Enter
  void brushed(const QRect& cells);        ///< Ctrl+drag or Space; x: columns, y: rows
  void pinned(qint64 row, qint64 col);
  void rangeDragged(double low, double high);  ///< on the colour bar
  void tileWanted(const QRect& cells);         ///< x: columns, y: rows; only coarse levels of them are known

 protected:
  void wheelEvent(QWheelEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mouseReleaseEvent(QMouseEvent* event) override;
  void mouseDoubleClickEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void paintEvent(QPaintEvent* event) override;

 private:
  enum class Drag { None, Pan, BoxZoom, Brush, RangeLow, RangeHigh };
  QRectF body() const { return panel_.bodyRect(rect(), figureStyle()); }
  QRectF cellsOfDrag() const;
  void moveCursor(qint64 rows, qint64 cols);

  HeatmapPanel panel_;
  QTimer tile_timer_;
  Drag drag_ = Drag::None;
  QPointF pressed_, at_;
  QRectF viewport_at_press_, brush_anchor_;
  analysis::ColorScale scale_at_press_;
  bool box_zoom_armed_ = false, moved_ = false;
};

}  // namespace qs
