#pragma once

#include <memory>
#include <vector>

#include "backend/types/eval_result.h"
#include "backend/types/published_number.h"
#include "widgets/view_base.h"

class QCheckBox;
class QComboBox;
class QGroupBox;
class QLabel;
class QSplitter;
class QTableView;

namespace qs {

class ParetoView;
class PublishedModel;
class ResultsModel;

/// All runs as a table with paired differences to a baseline, above quality against effective bits.
class ResultsView : public ViewBase {
  Q_OBJECT
 public:
  explicit ResultsView(SelectionHub& hub, QWidget* parent = nullptr);
  ~ResultsView() override;

  void setReports(std::vector<EvalReport> reports);
  /// What papers report of the declared methods. Rows of the methods that the runs use are listed below them, never
  /// drawn with them: they were measured on other models, texts and programs.
  void setPublished(std::vector<PublishedNumber> numbers, std::vector<MethodInfo> methods);
  PublishedModel& published() { return *published_model_; }
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
  void showPublished();
  std::unique_ptr<ResultsModel> model_;
  std::vector<PublishedNumber> published_;
  std::vector<MethodInfo> methods_;
  PublishedModel* published_model_;
  QGroupBox* published_box_;
  QTableView* published_table_;
  QCheckBox* published_shown_;
  QTableView* table_;
  ParetoView* pareto_;
  QComboBox *task_, *cost_;
  QCheckBox* mixed_;
  QLabel* warning_;
};

}  // namespace qs
