#pragma once

#include <QStringList>
#include <memory>
#include <vector>

#include "analysis/weight_error.h"
#include "backend/types/linear_grid.h"
#include "widgets/views/heatmap_view.h"
#include "widgets/views/strip_canvas.h"
#include "widgets/views/weight_layers_page.h"
#include "widgets/views/weight_run_page.h"

class QButtonGroup;
class QSplitter;
class QStackedWidget;

namespace qs {

class PlotView;

/// Every linear of one variant against the original.
struct WeightVariant {
  QString id, label, setup;
  QString why;  ///< why there is no overview yet
  std::shared_ptr<const analysis::WeightOverview> overview;
};

/// One variant's weight of the chosen linear.
struct WeightSide {
  QString label;
  QString why;                     ///< why there is nothing to show
  TensorView original, quantized;  ///< [out_features, in_features]
  PyramidPtr absolute, signedError;
  std::vector<float> byInput, byOutput;
  analysis::WeightHistogram histogram;  ///< of the whole matrix, kHistogramBins
  analysis::LinearReport report;
  LinearGrid grid;
  PyramidPtr kept;  ///< of grid.kept; null: none
  analysis::MaskShares keptShares;
  bool shown() const { return absolute != nullptr; }
};

/// What quantization does to weights: heatmaps layer x linear of every variant, the chosen linear cell by cell with its
/// histogram and grid, what its method keeps apart (outliers of SpQR, planes of BCQ, scales), local and accumulated
/// errors over depth, and the progress of layer-by-layer methods.
class WeightsView : public HeatmapView {
  Q_OBJECT
 public:
  static constexpr int kMostVariants = 6, kHistogramBins = 120;
  enum Page { Errors = 0, Layers = 1, Run = 2 };
  enum class Scope { Matrix, Row, Group };  ///< whose weights the histogram counts

  explicit WeightsView(SelectionHub& hub, QWidget* parent = nullptr);

  void setVariants(std::vector<WeightVariant> variants);
  const std::vector<WeightVariant>& variants() const { return variants_; }
  /// @param kind  of the linear, "self_attn.q_proj"
  void setLinear(int layer, const QString& kind, WeightSide a, WeightSide b);

  QString kind() const { return kind_; }  ///< the chosen linear; empty: the first
  void setKind(const QString& kind);
  analysis::WeightMetric metric() const { return metric_; }
  void setMetric(analysis::WeightMetric metric);
  void setSigned(bool is_signed);
  Page page() const { return page_; }
  void setPage(Page page);
  void chooseCell(qint64 output, qint64 input);  ///< whose row and group the grid is of
  void askRetryLayer();  ///< as the button of the run page: the chosen row's layer, else the selected one
  WeightRunPage& run() { return *run_page_; }
  WeightLayersPage& layers() { return *layers_page_; }
  PlotView* histogram() { return histogram_; }

  void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QAbstractTableModel* dataTable() override;
  QString accessibleSummary() const override;

 Q_SIGNALS:
  void linearChosen();  ///< another kind of linear
  void pageChanged();

 protected:
  void selectionApplied() override;
  void cellActivated(HeatmapCanvas* canvas, qint64 row, qint64 col) override;
  void modeApplied() override;
  void saveOwn(QJsonObject& settings) const override;
  void restoreOwn(const QJsonObject& settings) override;
  FigureTable::Content tableOf(PanelCanvas* canvas) override;

 private:
  void buildControls();
  QWidget* buildErrors();
  QWidget* buildDetail();
  void refreshOverview();
  void refreshStrip();
  void refreshDetail();
  void refreshHistogram();
  void refreshParts();
  void fillPartChoices();
  const WeightSide& shownSide() const;
  std::int64_t groupOf(const LinearGrid& grid, std::int64_t input) const;
  std::vector<float> levelsOf(const WeightSide& side) const;
  QString gridText(const WeightSide& side, std::size_t levels) const;
  QString describeOverview(int variant, Cell cell) const;
  QString describeDetail(Cell cell) const;
  QString describeParts(Cell cell) const;
  QString linearTitle() const;
  QList<PanelCanvas*> errorCanvases() const;
  bool isMaximized() const;
  void refillPageTable();

  QStackedWidget* pages_ = nullptr;
  QButtonGroup* page_buttons_ = nullptr;
  std::vector<HeatmapCanvas*> overview_;
  HeatmapCanvas* detail_ = nullptr;
  HeatmapCanvas* parts_ = nullptr;
  MetricStripCanvas* strip_ = nullptr;
  PlotView* histogram_ = nullptr;
  HeatmapCanvas* layers_map_ = nullptr;
  WeightLayersPage* layers_page_ = nullptr;
  WeightRunPage* run_page_ = nullptr;
  QComboBox *metric_box_ = nullptr, *scope_box_ = nullptr, *parts_box_ = nullptr;
  QToolButton* signed_button_ = nullptr;
  std::vector<WeightVariant> variants_;
  WeightSide a_, b_;
  Page page_ = Errors;
  analysis::WeightMetric metric_ = analysis::WeightMetric::RelativeError;
  QString kind_, wanted_part_;
  int layer_ = 0;
  qint64 output_ = 0, input_ = 0;
  bool signed_ = false, table_asked_ = false;
  FigureTable page_table_;  ///< of the shown page: one model for all, so that a table beside the view follows
};

}  // namespace qs
