#pragma once

#include <QStringList>
#include <memory>
#include <vector>

#include "analysis/error_map.h"
#include "widgets/views/heatmap_view.h"
#include "widgets/views/kv_overlay_marks.h"
#include "widgets/views/strip_canvas.h"

class QCheckBox;
class QSplitter;
class QTableView;

namespace qs {

class PlainTableModel;

/// One variant's error of the chosen tensor.
struct ErrorSide {
  QString label;
  QString why;                                    ///< why there is no map ("full precision: nothing to compare")
  std::shared_ptr<const analysis::ErrorMap> map;  ///< may be null
  PyramidPtr absolute, signedError;
  TensorView saturation;  ///< [tokens, channels], 1 at the extreme codes
  KvOverlayPtr overlay;   ///< may be null
  TensorReport report;
  analysis::CodeCounts codes;               ///< of code c, or of codes of c bits; empty when the method has no codes
  bool countsWidths = false;                ///< `codes` counts by width
  std::vector<analysis::HotSpot> hotSpots;  ///< exact over all cells
};

/// Reconstruction errors: overview layer by K and V of every variant, KV head by layer, token by channel with
/// marginals, the hot spots, and the two metrics that are never shown apart.
class ErrorHeatmap : public HeatmapView {
  Q_OBJECT
 public:
  static constexpr int kMostVariants = 6;
  explicit ErrorHeatmap(SelectionHub& hub, QWidget* parent = nullptr);

  void setOverview(std::vector<analysis::VariantErrors> variants);
  void setHeads(TensorView a, TensorView b);  ///< relative error [kv_heads, layers]
  void setDetail(int layer, const QString& tensor, ErrorSide a, ErrorSide b, qint64 headDim);
  void setTokens(const QStringList& tokens) { tokens_ = tokens; }
  analysis::ErrorMetric metric() const { return metric_; }
  void setMetric(analysis::ErrorMetric metric);
  void setSigned(bool is_signed);

 protected:
  void selectionApplied() override;
  void cellActivated(HeatmapCanvas* canvas, qint64 row, qint64 col) override;
  void cellsBrushed(HeatmapCanvas* canvas, const QRect& cells) override;
  void brushCleared() override;
  void modeApplied() override;
  void saveOwn(QJsonObject& settings) const override;
  void restoreOwn(const QJsonObject& settings) override;
  FigureTable::Content tableOf(PanelCanvas* canvas) override;

 private:
  void buildControls();
  void buildBody();
  QWidget* buildSide();  ///< hot spots, code histogram, overlays
  void refreshOverview();
  void refreshDetail();
  void refreshOverlays();
  void refreshHotSpots();
  const ErrorSide& shownSide() const;
  QString describe(const HeatmapCanvas* canvas, Cell cell) const;
  QString describeOverview(int variant, Cell cell) const;
  void jumpTo(int row);

  std::vector<HeatmapCanvas*> overview_;
  HeatmapCanvas* heads_ = nullptr;
  HeatmapCanvas* detail_ = nullptr;
  MetricStripCanvas* strip_ = nullptr;
  CodeStripCanvas* codes_ = nullptr;
  QTableView* spots_ = nullptr;
  PlainTableModel* spots_model_ = nullptr;
  QComboBox* metric_box_ = nullptr;
  QComboBox* tensor_box_ = nullptr;
  QToolButton* signed_button_ = nullptr;
  QCheckBox* saturation_box_ = nullptr;
  QCheckBox* window_box_ = nullptr;
  QCheckBox* picks_box_ = nullptr;
  QCheckBox* evicted_box_ = nullptr;
  QComboBox* grid_box_ = nullptr;
  std::vector<analysis::VariantErrors> variants_;
  ErrorSide a_, b_;
  QStringList tokens_;
  QString tensor_ = QStringLiteral("key");
  analysis::ErrorMetric metric_ = analysis::ErrorMetric::RelativeError;
  int layer_ = 0;
  qint64 head_dim_ = 0;
  bool signed_ = false;
};

}  // namespace qs
