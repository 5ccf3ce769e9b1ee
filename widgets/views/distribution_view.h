#pragma once

#include <memory>

#include "analysis/value_grid.h"
#include "backend/types/quantize_report.h"
#include "widgets/view_base.h"

class QCheckBox;
class QComboBox;
class QLabel;

namespace qs {

class PlainTableModel;
class PlotView;

/// Which elements of the selected tensor are counted.
enum class DistributionScope { Tensor, Head, Channel, Token };

/// What a presenter computed for the distribution view.
struct Distribution {
  analysis::ValueGrid grid;
  QString what;   ///< "layer 3 key, head 1, channel 17"
  QString setup;  ///< setup line of the variant, or empty
  TensorReport report;
  bool quantized = false;
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
  Distribution distribution_;
  std::unique_ptr<PlainTableModel> table_;
  QComboBox* scope_;
  QCheckBox* log_;
  QLabel* facts_;
  PlotView* plot_;
};

}  // namespace qs
