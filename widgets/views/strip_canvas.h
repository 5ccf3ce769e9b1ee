#pragma once

#include "widgets/paint/metric_strip_panel.h"
#include "widgets/paint/token_strip_panel.h"
#include "widgets/views/panel_canvas.h"

namespace qs {

class MetricStripCanvas : public PanelCanvas {
  Q_OBJECT
 public:
  using PanelCanvas::PanelCanvas;
  MetricStripPanel& panel() override { return panel_; }
  using PanelCanvas::panel;

 protected:
  void keyPressEvent(QKeyEvent* event) override {
    if (!commonKey(event)) PanelCanvas::keyPressEvent(event);
  }

 private:
  MetricStripPanel panel_;
};

class CodeStripCanvas : public PanelCanvas {
  Q_OBJECT
 public:
  using PanelCanvas::PanelCanvas;
  CodeStripPanel& panel() override { return panel_; }
  using PanelCanvas::panel;

 protected:
  void keyPressEvent(QKeyEvent* event) override {
    if (!commonKey(event)) PanelCanvas::keyPressEvent(event);
  }

 private:
  CodeStripPanel panel_;
};

/// Click or arrows and Enter choose a token; the wheel scrolls.
class TokenStripCanvas : public PanelCanvas {
  Q_OBJECT
 public:
  TokenStripCanvas(const QString& id, QWidget* parent);
  TokenStripPanel& panel() override { return panel_; }
  using PanelCanvas::panel;

 Q_SIGNALS:
  void tokenChosen(qint64 token);

 protected:
  void mousePressEvent(QMouseEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void wheelEvent(QWheelEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;

 private:
  QString describe(qint64 token) const;
  TokenStripPanel panel_;
};

}  // namespace qs
