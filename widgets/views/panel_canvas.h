#pragma once

#include <QWidget>

#include "widgets/paint/figure_panel.h"
#include "widgets/view_base.h"

namespace qs {

/// A focusable widget that shows one panel; screen readers see a chart with the panel's summary.
class PanelCanvas : public QWidget {
  Q_OBJECT
 public:
  PanelCanvas(const QString& id, QWidget* parent);
  virtual FigurePanel& panel() = 0;
  const FigurePanel& panel() const { return const_cast<PanelCanvas*>(this)->panel(); }
  FigureStyle figureStyle() const { return FigureStyle::screen(*this); }
  virtual void fit() {}
  virtual void zoomBy(double) {}
  QSize sizeHint() const override { return {360, 240}; }
  QSize minimumSizeHint() const override { return {120, 70}; }

 Q_SIGNALS:
  void readout(const QString& text);
  void viewportChanged();
  void maximizeRequested();
  void focused();
  void modeKey(int mode);  ///< 0..3, 4: blink
  void logKey();
  void clearRequested();  ///< Esc

 protected:
  void paintEvent(QPaintEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;
  /// Keys that every plot knows: 1 2 3 4 B L F Z Esc. @return true when it was one
  bool commonKey(QKeyEvent* event);
  void announceValue(const QString& text);
};

}  // namespace qs
