#pragma once

#include <QObject>
#include <QString>

#include "app/workbench.h"

namespace qs {

class DistributionView;

/// Counts the selected tensor and applies the selected variant's KV setup to it.
class DistributionPresenter : public QObject {
  Q_OBJECT
 public:
  DistributionPresenter(Workbench& workbench, DistributionView& view);

 private:
  void follow(bool again);
  Workbench& workbench_;
  DistributionView& view_;
  QString shown_;
  quint64 generation_ = 0, job_ = 0;
};

}  // namespace qs
