#pragma once

#include <QColor>
#include <QPointF>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "widgets/paint/figure_panel.h"
#include "widgets/paint/heatmap_painter.h"

namespace qs {

/// One axis of cells.
struct PanelAxis {
  QString title;
  std::function<QString(std::int64_t)> label;  ///< of an index; the index itself when not set
  std::vector<double> borders;                 ///< thin lines at these cell borders (heads)
  std::vector<double> groups;                  ///< borders of scale groups, drawn where they are some pixels apart
  QString groupsTitle;                         ///< what the legend calls them
  std::int64_t brackets = 0;  ///< pairs i and i + brackets / 2 of every `brackets` cells are bracketed (RoPE)
};

/// A shaded band of rows or columns, such as a residual window.
struct PanelBand {
  enum class Look { Window, Sinks };
  bool rows = true;
  double begin = 0.0, end = 0.0;
  QString label;  ///< in the band where it fits, and in the legend
  Look look = Look::Window;
};

struct PanelPin {
  int number = 0;
  std::int64_t row = 0, col = 0;
  QString text;
  bool operator==(const PanelPin&) const = default;
};

struct Cell {
  std::int64_t row = 0, col = 0;
  bool operator==(const Cell&) const = default;
};

/// Cells that are marked over the body and named in the legend.
struct PanelMarks {
  enum class Look { Dots, Picks, Hatched };
  Look look = Look::Dots;
  QString label;
  std::function<bool(std::int64_t row, std::int64_t col)> marked;  ///< of dots and hatches: sampled at the pixels
  std::vector<Cell> cells;                                         ///< of picks: all of them
};

/// A zoomable map of cells with axes, colour bar, overlays, marginal profiles, data cursor, brush and pins.
class HeatmapPanel : public FigurePanel {
 public:
  PanelAxis x, y;
  QString valueTitle;  ///< along the colour bar, with unit
  analysis::ColorScale scale;
  MapName map = MapName::Viridis;
  PixelPool pool = PixelPool::Max;
  bool causal = false, cellTexts = false, showColorBar = true;
  std::vector<PanelBand> bands;
  std::vector<PanelPin> pins;
  std::vector<float> topProfile, rightProfile;  ///< one value a column, one a row; empty: not drawn
  QString topTitle, rightTitle;
  std::vector<PanelMarks> marks;
  std::optional<Cell> cursor;
  QRectF brush;                                     ///< in cells; empty: none
  std::int64_t selectedRow = -1, selectedCol = -1;  ///< outlined

  void setData(std::shared_ptr<const analysis::TilePyramid> data);
  /// Exact cells of a part, for data of which only coarse levels are known; null: none. Forgotten by setData.
  void setTile(std::shared_ptr<const analysis::ExactTile> tile);
  const std::shared_ptr<const analysis::ExactTile>& tile() const { return tile_; }
  bool tileCovers(const QRectF& cells) const;
  /// What to fetch so that the viewport is exact, with a margin to pan within; empty when nothing is missing or too
  /// much is in sight.
  QRect missingTile() const;
  const std::shared_ptr<const analysis::TilePyramid>& data() const { return data_; }
  std::int64_t rows() const { return data_ ? data_->rows : 0; }
  std::int64_t cols() const { return data_ ? data_->cols : 0; }

  /// What is seen, in cells. Unset: everything.
  QRectF viewport() const;
  bool isFitted() const { return !viewport_; }
  void setViewport(const QRectF& viewport);
  void fit() { viewport_.reset(); }
  void zoom(double factor, QPointF center, bool x_only);  ///< factor > 1: closer; center in cells
  void pan(double columns, double rows);

  QRectF bodyRect(const QRectF& target, const FigureStyle& style) const override;
  QRectF colorBarRect(const QRectF& target, const FigureStyle& style) const;
  std::optional<Cell> cellAt(QPointF at, const QRectF& target, const FigureStyle& style) const;
  QPointF toCells(QPointF at, const QRectF& body) const;
  QPointF toScreen(double col, double row, const QRectF& body) const;
  QString pooledText() const;  ///< "max-pooled 4 x 4", "exact"

  QImage renderBody(const QSize& size) const;
  QRgb colorOf(float value) const;
  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QString summary() const override;
  bool isEmpty() const override { return !data_ || data_->levels.empty(); }

 private:
  HeatmapRender request() const;
  void paintBody(QPainter& painter, const QRectF& body, const FigureStyle& style);
  void paintOverlays(QPainter& painter, const QRectF& body, const FigureStyle& style) const;
  void paintMarks(QPainter& painter, const QRectF& body) const;
  void paintGroups(QPainter& painter, const QRectF& body, const FigureStyle& style) const;
  bool groupsAreApart(const PanelAxis& axis, double pixels_per_cell) const;
  struct LegendEntry {
    enum class Sign { Groups, Window, Sinks, Dots, Picks, Hatched } sign;
    QString text;
    QPointF at;  ///< from the corner of the legend
  };
  std::vector<LegendEntry> legend(double width, const QRectF& body, const FigureStyle& style) const;
  double legendHeight(double width, const FigureStyle& style) const;
  void paintLegend(QPainter& painter, const QRectF& target, const QRectF& body, const FigureStyle& style) const;
  void paintCellTexts(QPainter& painter, const QRectF& body, const FigureStyle& style) const;
  void paintProfiles(QPainter& painter, const QRectF& body, const FigureStyle& style) const;
  void paintAxes(QPainter& painter, const QRectF& target, const QRectF& body, const FigureStyle& style) const;

  std::shared_ptr<const analysis::TilePyramid> data_;
  std::shared_ptr<const analysis::ExactTile> tile_;
  std::optional<QRectF> viewport_;
  analysis::PlaneSummary plane_;
  mutable std::int64_t factor_ = 1;
  struct Drawn {
    QImage image;
    QRectF viewport;
    QSize size;
    analysis::ColorScale scale;
    MapName map;
    PixelPool pool;
    const void* data;
  };
  std::optional<Drawn> drawn_;

 public:
  const analysis::PlaneSummary& plane() const { return plane_; }
};

}  // namespace qs
