#pragma once

#include <QObject>

#include "app/workbench.h"

namespace qs {

class ResultsView;

/// Reads the results file of the session whenever it changed.
class ResultsPresenter : public QObject {
  Q_OBJECT
 public:
  ResultsPresenter(Workbench& workbench, ResultsView& view);

 private:
  void read();
  void readPublished();
  Workbench& workbench_;
  ResultsView& view_;
  quint64 generation_ = 0;
};

}  // namespace qs
