#pragma once

#include <QString>
#include <QWidget>
#include <optional>
#include <vector>

#include "analysis/weight_progress.h"
#include "backend/types/weight_run.h"
#include "widgets/view_base.h"

class QAbstractTableModel;
class QComboBox;
class QLabel;
class QTableView;
class QToolButton;

namespace qs {

class PlainTableModel;
class PlotView;

/// A layer-by-layer quantization as it is shown.
struct ShownWeightRun {
  enum class State { None, Waiting, Running, Finished, Stopped };
  State state = State::None;
  QString setup, calibration, checkpoint;
  QString reason;               ///< why it stopped, or what the variant needs before it can start
  bool layer_by_layer = false;  ///< its method goes through the model layer by layer
  std::int64_t linears_per_layer = 0;
  std::optional<WeightForecast> forecast;
  std::vector<LayerProgress> linears;
  double elapsed_seconds = 0.0;
};

/// Progress of a layer-by-layer method: the proxy loss of every finished linear against that of round to nearest, and
/// a row a linear with its damping, tokens, seconds and notes. Start, cancel, resume and redo one layer.
class WeightRunPage : public QWidget {
  Q_OBJECT
 public:
  explicit WeightRunPage(QWidget* parent = nullptr);

  /// The weight variants that can be chosen, (id, label).
  void setVariants(const QList<std::pair<QString, QString>>& variants);
  QString variant() const;
  void setVariant(const QString& id);
  void setRun(const ShownWeightRun& run);
  const ShownWeightRun& run() const { return run_; }
  int chosenLayer() const;  ///< of the chosen row; -1: none

  PlotView* plot() { return plot_; }
  QAbstractTableModel* table();
  QString factsText() const;     ///< how far it is, its loss, the time left
  QString forecastText() const;  ///< memory and time, told before the first layer
  QString summary() const;
  void paint(QPainter& painter, const QRectF& target, const FigureStyle& style);

 Q_SIGNALS:
  void variantChosen(const QString& id);
  void startRequested(const QString& id);
  void cancelRequested();
  void retryLayerRequested(const QString& id, int layer);
  void layerActivated(int layer, const QString& kind);
  void readout(const QString& text);

 private:
  void refresh();
  void refreshPlot();
  void refreshTable();
  ShownWeightRun run_;
  QComboBox* variants_;
  QToolButton *start_, *cancel_, *retry_;
  QLabel *facts_, *forecast_;
  PlotView* plot_;
  QTableView* rows_;
  PlainTableModel* model_;
  QString wanted_;  ///< chosen before the variants were known
};

}  // namespace qs
