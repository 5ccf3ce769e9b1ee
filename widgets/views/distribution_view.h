#pragma once

#include <memory>

#include "analysis/value_grid.h"
#include "backend/types/quantize_report.h"
#include "widgets/plot_view.h"
#include "widgets/view_base.h"

class QCheckBox;
class QComboBox;
class QLabel;

namespace qs {

class CodeStripCanvas;
class PlainTableModel;

/// Which elements of the selected tensor are counted.
enum class DistributionScope { Tensor, Head, Channel, Token };

/// What a presenter computed for the distribution view.
struct Distribution {
  analysis::ValueGrid grid;
  QString what;   ///< "layer 3 key, head 1, channel 17"
  QString setup;  ///< setup line of the variant, or empty
  TensorReport report;
  bool quantized = false;
  QString note;                       ///< why nothing is quantized, where a setup was chosen
  analysis::QuantizerGrid quantizer;  ///< of the counted elements
  QString groups;                     ///< "a scale for 32 tokens × 1 channel"
  std::vector<float> codebook;        ///< levels in units of a group's scale; empty for equal steps
  bool mixedWidths = false;           ///< codes of different groups have different numbers of bits
  double publishedBits = 0.0;
};

/// Histogram of the selected tensor with the quantization grid of a setup over it.
class DistributionView : public ViewBase {
  Q_OBJECT
 public:
  explicit DistributionView(SelectionHub& hub, QWidget* parent = nullptr);
  ~DistributionView() override;

  void setDistribution(const Distribution& distribution);
  DistributionScope scope() const;
  PlotView* plot() { return plot_; }

  void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QAbstractTableModel* dataTable() override;
  QString accessibleSummary() const override;
  QJsonObject saveSettings() const override;
  void restoreSettings(const QJsonObject& settings) override;
  void setLogScale(bool log) override;

 Q_SIGNALS:
  void scopeChanged();

 private:
  void refresh();
  QString factsText() const;
  QVector<PlotRule> rules() const;  ///< ends of the range, and where outliers begin
  Distribution distribution_;
  std::unique_ptr<PlainTableModel> table_;
  QComboBox* scope_;
  QCheckBox* log_;
  QLabel* facts_;
  PlotView* plot_;
  CodeStripCanvas* codes_;
};

}  // namespace qs
