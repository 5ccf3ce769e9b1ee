#pragma once

#include <QStringList>
#include <QVector>
#include <QWidget>
#include <vector>

#include "widgets/view_base.h"

namespace qs {

/// Layer x alpha heatmap of the local error with the path of the best alpha of each layer. Each row may be divided by
/// its own smallest value, so that layers of different size compare. Arrows move the data cursor.
class LayerAlphaMap : public QWidget {
  Q_OBJECT
 public:
  explicit LayerAlphaMap(QWidget* parent = nullptr);

  /// @param values  [layers][alphas]; NaN is not finished
  void setMap(QVector<double> alphas, std::vector<std::vector<double>> values, std::vector<int> path,
              const QString& title);
  void setRelative(bool relative);  ///< each row divided by its minimum
  bool relative() const { return relative_; }
  void setAlpha(double alpha);  ///< a mark at the slider's alpha
  void setLayer(int layer);
  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style);
  const std::vector<std::vector<double>>& values() const { return values_; }

  QSize sizeHint() const override { return {420, 260}; }
  QSize minimumSizeHint() const override { return {160, 110}; }

 Q_SIGNALS:
  void cellActivated(int layer, double alpha);
  void readout(const QString& text);

 protected:
  void paintEvent(QPaintEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;

 private:
  bool cellAt(const QPointF& position, int& layer, int& column) const;
  void moveCursorTo(int layer, int column);
  QVector<double> alphas_;
  std::vector<std::vector<double>> values_;
  std::vector<int> path_;
  QString title_;
  bool relative_ = true;
  double alpha_ = -1.0;
  int layer_ = -1, cursor_layer_ = -1, cursor_column_ = -1;
  QRectF cells_;
};

}  // namespace qs
