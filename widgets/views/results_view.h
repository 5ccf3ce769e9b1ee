#pragma once

#include <memory>
#include <vector>

#include "backend/types/eval_result.h"
#include "widgets/view_base.h"

class QCheckBox;
class QComboBox;
class QLabel;
class QSplitter;
class QTableView;

namespace qs {

class ParetoView;
class ResultsModel;

/// All runs as a table with paired differences to a baseline, above quality against effective bits.
class ResultsView : public ViewBase {
  Q_OBJECT
 public:
  explicit ResultsView(SelectionHub& hub, QWidget* parent = nullptr);
  ~ResultsView() override;

  void setReports(std::vector<EvalReport> reports);
  ResultsModel& model() { return *model_; }
  ParetoView& pareto() { return *pareto_; }

  void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QAbstractTableModel* dataTable() override;
  QString accessibleSummary() const override;
  QJsonObject saveSettings() const override;
  void restoreSettings(const QJsonObject& settings) override;

 Q_SIGNALS:
  void evaluateRequested();
  void variantActivated(const QString& variantLabel);

 private:
  void showPareto();
  void showWarning();
  std::unique_ptr<ResultsModel> model_;
  QTableView* table_;
  ParetoView* pareto_;
  QComboBox *task_, *cost_;
  QCheckBox* mixed_;
  QLabel* warning_;
};

}  // namespace qs
