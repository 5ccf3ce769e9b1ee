#pragma once

#include <memory>
#include <vector>

#include "backend/types/eval_result.h"
#include "widgets/plot_view.h"
#include "widgets/view_base.h"

class QAction;
class QComboBox;
class QDoubleSpinBox;
class QGridLayout;
class QLabel;
class QSlider;
class QToolButton;

namespace qs {

class LayerAlphaMap;
class PlainTableModel;

/// SmoothQuant alpha sweep: (a) quality against alpha with paired intervals and the tied range, (b) local error by
/// layer and alpha, (c) channel maxima before and after smoothing at the slider's alpha, (d) what rounding X and W
/// costs against alpha. (c) and (d) are arithmetic on channel maxima and follow the slider without running the model.
class AlphaSweepView : public ViewBase {
  Q_OBJECT
 public:
  explicit AlphaSweepView(SelectionHub& hub, QWidget* parent = nullptr);
  ~AlphaSweepView() override;

  void setResult(const AlphaSweepResult& result);
  const AlphaSweepResult& result() const { return result_; }
  /// Channel maxima of every folded pair, layer-major.
  void setMigrationInputs(std::vector<MigrationInput> inputs);
  void setSweeping(bool sweeping);  ///< cancel is possible, run is not

  double alpha() const { return alpha_; }
  void setAlpha(double alpha);
  bool modelMode() const;
  QString edgeWarning() const;  ///< empty when no minimum lies on the grid's edge

  PlotView* sweepPlot() { return sweep_; }
  LayerAlphaMap* layerMap() { return layers_; }
  PlotView* migrationPlot() { return migration_; }
  PlotView* balancePlot() { return balance_; }

  void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QAbstractTableModel* dataTable() override;
  QString accessibleSummary() const override;
  QJsonObject saveSettings() const override;
  void restoreSettings(const QJsonObject& settings) override;
  void setLogScale(bool log) override;

 Q_SIGNALS:
  void sweepRequested(bool modelMode);  ///< the default grid; true: perplexity, false: layer error
  void pointsRequested(const std::vector<double>& alphas, bool modelMode);
  void alphaChanged(double alpha);
  /// A plan with an alpha of its own in each of these layers; NaN keeps a layer's.
  void layerAlphasRequested(const std::vector<double>& alphas);

 protected:
  bool eventFilter(QObject* watched, QEvent* event) override;
  void selectionChanged() override;

 private:
  void makeControls();
  void showSweep();
  void showLayers();
  void showMigration();
  void showBalance();
  void showUse();
  const MigrationInput* pair() const;
  int layerOfPair() const;
  int layers() const;                      ///< of the model, from its pairs
  std::vector<double> bestAlphas() const;  ///< of each layer in the map; empty before a point is finished

  AlphaSweepResult result_;
  std::vector<MigrationInput> inputs_;
  double alpha_ = 0.5;
  bool log_y_ = false, sweeping_ = false;
  std::unique_ptr<PlainTableModel> table_;
  QComboBox *mode_, *scheme_, *pair_;
  QSlider* slider_;
  QDoubleSpinBox* value_;
  QToolButton *run_, *add_, *refine_, *cancel_, *use_;
  QAction* best_;
  QLabel* warning_;
  QGridLayout* grid_ = nullptr;
  PlotView *sweep_, *migration_, *balance_;
  LayerAlphaMap* layers_;
};

}  // namespace qs
