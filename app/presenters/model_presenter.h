#pragma once

#include <QHash>
#include <QObject>

#include "app/workbench.h"
#include "backend/types/module_info.h"
#include "widgets/model_card.h"

namespace qs {

class ModelView;

/// Fills the model page: headers and modules of the chosen model, its forecast and what was measured, and the statistic
/// that colours the modules.
class ModelPresenter : public QObject {
  Q_OBJECT
 public:
  ModelPresenter(Workbench& workbench, ModelView& view);

 private:
  void showModels();
  void showModel(const QString& id);
  void showForecast();
  void showStatistic();
  void showWeightStatistic(const QString& statistic);
  void showInputStatistic(const QString& statistic);
  QString fileOf(const QString& modelId) const;

  Workbench& workbench_;
  ModelView& view_;
  QString model_;
  ModuleInfo modules_;
  MemoryForecast forecast_;
  QHash<QString, QVector<TensorStatistics>> weights_;  ///< by model id
  quint64 generation_ = 0, forecast_generation_ = 0;
  quint64 statistic_job_ = 0;
};

}  // namespace qs
