#pragma once

#include <QColor>
#include <QSizeF>
#include <QString>
#include <QVector>
#include <QWidget>
#include <limits>
#include <memory>
#include <optional>

#include "widgets/view_base.h"

namespace qs {

/// One point of a series, in data units. `low` and `high` span a band or an error bar; NaN: none.
struct PlotPoint {
  enum class Marker { None, Filled, Hollow, Cross, Ringed, Tick };
  double x = 0.0, y = 0.0;
  double low = std::numeric_limits<double>::quiet_NaN(), high = std::numeric_limits<double>::quiet_NaN();
  Marker marker = Marker::None;
  QString note;  ///< shown with the exact value: "cached", the reason of a failure
};

struct PlotSeries {
  enum class Spread { None, Band, Bars };
  enum class Shape { Line, Steps, Points };  ///< Steps: each point holds until the next x
  QString name;
  QVector<PlotPoint> points;
  int color = -1;  ///< index of seriesColor(); -1: the next one
  Spread spread = Spread::None;
  Shape shape = Shape::Line;
  bool filled = false;  ///< area down to the axis
  bool dashed = false;
};

struct PlotAxis {
  QString title;     ///< with its unit
  bool log = false;  ///< values of zero and below lie on the axis and are marked
  double low = std::numeric_limits<double>::quiet_NaN(),
         high = std::numeric_limits<double>::quiet_NaN();  ///< NaN: from the data
  bool integer = false;
};

struct PlotRule {
  double at = 0.0;
  QString label;
  bool vertical = false, dashed = true;
};

struct PlotSpan {
  double from = 0.0, to = 0.0;  ///< along x
  QString label;
};

/// Everything a plot shows. At most about 5,000 points in 4 series belong in it; larger data is decimated or painted
/// from tiles.
struct PlotSpec {
  QString title;
  PlotAxis x, y;
  QVector<PlotSeries> series;
  QVector<PlotRule> rules;
  QVector<PlotSpan> spans;
  QVector<double> rug;  ///< short strokes at the bottom edge, x values
  QString emptyText;    ///< said in the middle when there is no point
  bool legend = true;
  bool labels = false;  ///< notes are written beside their points where they fit
  QSizeF corner;        ///< kept free in the upper left for a control; the legend stands beside it
};

/// Colour of the n-th series on a background: colour-blind safe, light or dark.
QColor seriesColor(int index, const QColor& background);

/// A small plot. What is on the screen and what is exported are painted by the same function. Left and Right move the
/// data cursor along a series, Up and Down change the series, Enter activates the point.
class PlotView : public QWidget {
  Q_OBJECT
 public:
  explicit PlotView(QWidget* parent = nullptr);
  ~PlotView() override;

  void setSpec(PlotSpec spec);
  const PlotSpec& spec() const;
  /// Vector drawing of the whole plot into `target`, in the painter's units.
  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style);
  /// Where a data point lies in the widget after painting.
  QPointF positionOf(double x, double y) const;
  QString pointText(int series, int index) const;

  QSize sizeHint() const override { return {420, 260}; }
  QSize minimumSizeHint() const override { return {160, 110}; }

 Q_SIGNALS:
  void pointHovered(int series, int index, const QString& text);  ///< index -1: no point under the cursor
  void pointActivated(int series, int index);
  void positionClicked(double x, double y);

 protected:
  void paintEvent(QPaintEvent* event) override;
  void mouseMoveEvent(QMouseEvent* event) override;
  void mousePressEvent(QMouseEvent* event) override;
  void leaveEvent(QEvent* event) override;
  void keyPressEvent(QKeyEvent* event) override;
  void changeEvent(QEvent* event) override;
  void focusInEvent(QFocusEvent* event) override;
  void focusOutEvent(QFocusEvent* event) override;

 private:
  void moveCursorTo(int series, int index);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qs
