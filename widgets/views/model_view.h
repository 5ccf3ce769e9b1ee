#pragma once

#include "widgets/model_card.h"
#include "widgets/models/module_tree_model.h"
#include "widgets/view_base.h"

class QComboBox;
class QTreeView;

namespace qs {

class PlainTableModel;

/// The model page: its card with forecast and measurement, and its modules with a statistic as a colour column.
class ModelView : public ViewBase {
  Q_OBJECT
 public:
  struct Statistic {
    QString id, title, unit, help;
    bool logarithmic = true;
  };
  explicit ModelView(SelectionHub& hub, QWidget* parent = nullptr);
  ~ModelView() override;

  void setModels(const QStringList& ids, const QString& current);
  void setInfo(const ModelInfo& info, const ModuleInfo& modules);
  void setForecast(const MemoryForecast& forecast);
  void setStatistics(const QVector<Statistic>& statistics);
  /// Values of the statistic `id` by tensor path; dropped when another one was chosen meanwhile.
  void setValues(const QString& id, const QHash<QString, double>& values);
  void setStatisticState(const QString& text);  ///< "reading the weights…", shown beside the choice; empty: none

  QString modelId() const;
  QString statistic() const;
  ModelCard& card() { return *card_; }
  ModuleTreeModel& modules() { return *tree_model_; }

  void paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) override;
  QAbstractTableModel* dataTable() override;
  QString accessibleSummary() const override;
  QJsonObject saveSettings() const override;
  void restoreSettings(const QJsonObject& settings) override;
  void fitView() override;

 Q_SIGNALS:
  void modelChosen(const QString& id);
  void statisticChosen(const QString& id);
  void forecastWanted();
  void linearActivated(const QString& linear);  ///< its name in captures

 private:
  void fillTable();
  QVector<QModelIndex> shownRows() const;

  QComboBox *models_, *statistics_;
  QLabel* state_text_;
  ModelCard* card_;
  QTreeView* tree_;
  ModuleTreeModel* tree_model_;
  std::unique_ptr<PlainTableModel> table_;
  QVector<Statistic> known_;
  QString wanted_statistic_;
};

}  // namespace qs
