#pragma once

#include <QString>
#include <QWidget>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "backend/types/layer_statistics.h"
#include "backend/types/tensor_view.h"
#include "widgets/view_base.h"

class QAbstractTableModel;
class QComboBox;
class QLabel;
class QSpinBox;
class QToolButton;

namespace qs {

class HeatmapCanvas;
class PlainTableModel;
class PlotView;

/// Error over depth of one plan, local and accumulated in turn and never in one picture: local is what each linear's
/// own rounding does to its output (analyze-stats), accumulated how far everything in front of a linear has moved its
/// input (layer-distance). One curve a kind of linear, and a heatmap layer x linear.
class WeightLayersPage : public QWidget {
  Q_OBJECT
 public:
  enum class Error { Local = 0, Accumulated = 1 };
  /// @param map  canvas of the heatmap; the page places and fills it
  WeightLayersPage(HeatmapCanvas* map, QWidget* parent);

  void setVariants(const QList<std::pair<QString, QString>>& variants);
  QString variant() const;
  void setVariant(const QString& id);
  void setStatistics(const QString& variantId, std::optional<LayerStatistics> statistics);
  void setDistance(const QString& variantId, std::optional<LayerDistance> distance);
  void clear();
  void setBusy(const QString& variantId, bool busy, const QString& failure = {});
  bool isBusy() const { return busy_; }
  bool isEmpty() const;
  Error error() const;
  void setError(Error error);
  QString metric() const;
  void setMetric(const QString& id);
  int windows() const;
  void setLayer(int layer);

  PlotView* plot() { return plot_; }
  QAbstractTableModel* table();
  QString summary() const;
  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style);

 Q_SIGNALS:
  void measureRequested(const QString& variantId, bool accumulated, int windows);
  void cancelRequested();
  void variantChosen();
  void cellsChanged(const TensorView& cells);  ///< [kinds, layers] of what is shown now; empty: nothing
  void readout(const QString& text);
  void changed();  ///< of what is chosen

 private:
  /// One linear as a row of what is shown.
  struct Row {
    LinearPlace place;
    std::map<std::string, double> values;
    std::int64_t exact = 0, windows = 0;
  };
  std::vector<Row> rows() const;
  void fillMetrics();
  void refresh();
  QString describe(std::int64_t row, std::int64_t column) const;

  std::map<QString, LayerStatistics> statistics_;
  std::map<QString, LayerDistance> distances_;
  std::vector<std::string> kinds_;
  bool busy_ = false;
  QString failure_;
  HeatmapCanvas* map_;
  QComboBox *variants_, *error_, *metric_;
  QSpinBox* windows_;
  QToolButton *measure_, *cancel_;
  QLabel* note_;
  PlotView* plot_;
  PlainTableModel* model_;
  QString wanted_;  ///< chosen before the variants were known
};

}  // namespace qs
