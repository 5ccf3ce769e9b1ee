#pragma once

#include <QHash>
#include <QList>
#include <QTimer>
#include <memory>

#include "sessions/session_state.h"
#include "widgets/selection_hub.h"
#include "widgets/view_base.h"
#include "widgets/views/figure_table.h"
#include "widgets/views/heatmap_canvas.h"
#include "widgets/views/line_canvas.h"

class QButtonGroup;
class QComboBox;
class QToolButton;

namespace qs {

using PyramidPtr = std::shared_ptr<const analysis::TilePyramid>;
using TilePtr = std::shared_ptr<const analysis::ExactTile>;

/// The base of the tensor views: compare strip (A, B, A-B, A/B, blink), colour scale, canvases, readout, pins, settings
/// and export. Subclasses add canvases, give them planes and say what a cell is.
class HeatmapView : public ViewBase {
  Q_OBJECT
 public:
  enum Compare { A = 0, B = 1, Difference = 2, Ratio = 3 };

  int compareMode() const { return mode_; }
  bool isBlinking() const { return blink_; }
  analysis::ScaleKind scaleKind() const { return kind_; }
  const Selection& selection() const { return selection_; }  ///< the shared one while linked, this view's own otherwise
  HeatmapCanvas* heatmap(const QString& id) const;
  LineCanvas* lines(const QString& id) const;
  /// Exact cells of what tileWanted asked for; they hold until the planes change.
  void setTiles(HeatmapCanvas* canvas, TilePtr a, TilePtr b);

  void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QAbstractTableModel* dataTable() override;
  QString accessibleSummary() const override;
  QJsonObject saveSettings() const override;
  void restoreSettings(const QJsonObject& settings) override;
  void fitView() override;
  void zoomBy(double factor) override;
  void setLogScale(bool on) override;
  void setCompareMode(int mode) override;
  void setBlink(bool on);
  void setScaleKind(analysis::ScaleKind kind);
  void setRangeMode(analysis::RangeMode mode);
  void setColorMap(MapName map);
  void setScaleLocked(bool locked);  ///< the range stays when the data changes
  void setScaleLinked(bool linked);  ///< A and B share one range

 Q_SIGNALS:
  void selectionMoved();  ///< presenters follow this instead of the hub
  void compareModeChanged(int mode);
  /// The viewport of a plane of which only coarse levels are known shows few enough cells to be exact.
  void tileWanted(const QString& canvas, const QRect& cells);

 protected:
  HeatmapView(QString viewId, QString title, SelectionHub& hub, QWidget* parent);

  /// A heatmap of two comparable planes.
  HeatmapCanvas* addHeatmap(const QString& id, const QString& title);
  LineCanvas* addLines(const QString& id, const QString& title);
  void addCanvas(PanelCanvas* canvas);
  /// @param is_signed  diverging colours with zero in the middle even for A and B themselves
  void setPlanes(HeatmapCanvas* canvas, PyramidPtr a, PyramidPtr b, bool is_signed = false);
  void setOwnScale(HeatmapCanvas* canvas, const analysis::ColorScale& scale);  ///< fixed: not touched by the strip
  PyramidPtr planeA(const HeatmapCanvas* canvas) const;
  PyramidPtr planeB(const HeatmapCanvas* canvas) const;
  QString modeText() const;  ///< "A", "B", "A − B", "A / B"
  /// "A 1.2 | B 1.1 | A-B 0.1" of a cell, exact.
  QString valuesText(const HeatmapCanvas* canvas, Cell cell) const;

  template <typename Change>
  void choose(Change&& change) {
    if (isLinked()) {
      hub().edit(change);
      selection_ = hub().selection();
    } else {
      change(selection_);
    }
    selectionApplied();
    Q_EMIT selectionMoved();
  }

  virtual void selectionApplied() {}  ///< outline the chosen layer, head, channels, tokens
  virtual void cellActivated(HeatmapCanvas*, qint64, qint64) {}
  virtual void cellsBrushed(HeatmapCanvas*, const QRect&) {}
  virtual void brushCleared() {}
  virtual void modeApplied() {}  ///< planes were exchanged: derived plots follow
  /// The numbers of a plot that is neither a heatmap nor a line plot.
  virtual FigureTable::Content tableOf(PanelCanvas*) { return {}; }
  virtual void saveOwn(QJsonObject&) const {}
  virtual void restoreOwn(const QJsonObject&) {}
  void selectionChanged() override;
  void tableOutdated();
  PanelCanvas* primaryCanvas() const { return primary_; }
  /// Long name of the selection's tensor with layer and units.
  static QString tensorTitle(const QString& tensor);

 private:
  struct Planes {
    PyramidPtr a, b, difference, ratio;
    TilePtr tile_a, tile_b;
    bool is_signed = false, fixed = false, manual = false;
    analysis::ColorScale manual_scale;
  };
  void buildStrip();
  void applyMode(HeatmapCanvas* canvas);
  void applyModeToAll();
  void applyTile(HeatmapCanvas* canvas);
  int shownMode() const { return blink_ ? (blink_shows_b_ ? B : A) : mode_; }
  void updateStrip();
  void toggleMaximized(PanelCanvas* canvas);
  void addPin(HeatmapCanvas* canvas, qint64 row, qint64 col);
  void refillTable();

  Selection selection_;
  int mode_ = A;
  bool blink_ = false, blink_shows_b_ = false, linked_scale_ = true, locked_scale_ = false;
  analysis::ScaleKind kind_ = analysis::ScaleKind::Linear;
  analysis::RangeMode range_ = analysis::RangeMode::Full;
  MapName map_ = MapName::Viridis;
  QTimer blink_timer_;
  QList<PanelCanvas*> canvases_;
  PanelCanvas* primary_ = nullptr;
  PanelCanvas* maximized_ = nullptr;
  QHash<const PanelCanvas*, Planes> planes_;
  FigureTable table_;
  bool table_asked_ = false, table_outdated_ = true;
  QTimer table_timer_;
  QButtonGroup* mode_buttons_ = nullptr;
  QToolButton* blink_button_ = nullptr;
  QToolButton* lock_button_ = nullptr;
  QToolButton* link_scale_button_ = nullptr;
  QComboBox* kind_box_ = nullptr;
  QComboBox* range_box_ = nullptr;
  QComboBox* map_box_ = nullptr;
};

}  // namespace qs
