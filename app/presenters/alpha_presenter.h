#pragma once

#include <QHash>
#include <QObject>
#include <QString>
#include <vector>

#include "app/workbench.h"
#include "backend/types/eval_result.h"

namespace qs {

class AlphaSweepView;

/// A SmoothQuant setup line, or one of its per-layer form, with other alphas. @param alphas  one a layer of the model;
/// NaN keeps the layer's
/// @throws Error InvalidArgument when a layer that gets an alpha is not smoothed by `line`
QString with_layer_alphas(const QString& line, const std::vector<double>& alphas);

/// Runs alpha sweeps of the model whose capture is selected, and keeps the finished points of each model.
class AlphaPresenter : public QObject {
  Q_OBJECT
 public:
  AlphaPresenter(Workbench& workbench, AlphaSweepView& view);

 private:
  void follow();  ///< the selected capture, when it became another one
  void sweep(const std::vector<double>& alphas, bool modelMode);
  void showKnown();
  void useAlphas(const std::vector<double>& alphas);
  QString captureId() const;
  QString resultKey(bool modelMode) const;
  void provenance(bool modelMode);

  Workbench& workbench_;
  AlphaSweepView& view_;
  QString capture_;
  QHash<QString, AlphaSweepResult> known_;
  quint64 generation_ = 0, job_ = 0;
};

}  // namespace qs
