#pragma once

#include <optional>
#include <vector>

#include "analysis/color_scale.h"
#include "widgets/paint/figure_panel.h"

namespace qs {

struct LineSeries {
  QString name;
  std::vector<double> x;               ///< ascending; empty: the index
  std::vector<float> y, lower, upper;  ///< lower and upper: a band; may be empty
  int color = 0;                       ///< 0 accent, 1 second accent, 2 muted
  bool dashed = false, points = false;
};

struct LineMark {
  double x = 0.0;
  QString label;
};

/// Curves over a common x, painted decimated to the pixels; logarithmic axes clamp what has no logarithm to their edge.
class LinePanel : public FigurePanel {
 public:
  std::vector<LineSeries> series;
  std::vector<LineMark> marks;                      ///< vertical lines
  std::optional<double> threshold;                  ///< horizontal, draggable on screen
  QString thresholdLabel, xTitle, yTitle, caption;  ///< caption: one emphasised sentence above the plot
  bool logX = false, logY = false;
  std::optional<double> yLow, yHigh;   ///< fixed range; unset: of the data
  std::optional<std::int64_t> cursor;  ///< index into the first series

  QRectF viewport() const;  ///< x range in axis units (logarithms when logX); y ignored
  void setViewport(double from, double to);
  void fit() { view_.reset(); }
  bool isFitted() const { return !view_; }
  void zoom(double factor, double center);
  void pan(double by);

  QRectF bodyRect(const QRectF& target, const FigureStyle& style) const override;
  QRectF captionRect(const QRectF& target, const FigureStyle& style) const;  ///< between title and plot
  std::optional<std::int64_t> indexAt(double x, const QRectF& body) const;
  double axisAt(double x, const QRectF& body) const;
  double valueAt(double y, const QRectF& body) const;
  double yOf(double value, const QRectF& body) const;
  double xOfIndex(const LineSeries& line, std::size_t index) const;
  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QString summary() const override;
  bool isEmpty() const override;

 private:
  std::pair<double, double> fullX() const;
  analysis::ColorScale yScale() const;
  double toX(double x) const;
  double screenX(double axis, const QRectF& body) const;
  int crowding(const QRectF& area, const QRectF& body) const;  ///< how much of the curves lies in `area`
  QRectF legendRect(const QRectF& body, const FigureStyle& style) const;

  std::optional<std::pair<double, double>> view_;
  std::optional<analysis::ColorScale> painted_;  ///< while painting: of the data, found once
};

}  // namespace qs
