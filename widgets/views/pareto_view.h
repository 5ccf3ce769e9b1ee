#pragma once

#include <QString>
#include <QVector>

#include "widgets/plot_view.h"

namespace qs {

/// Quality against cost; variants that nothing beats in both are joined by the front.
class ParetoView : public PlotView {
  Q_OBJECT
 public:
  struct Point {
    QString name;
    double cost = 0.0, loss = 0.0, error = 0.0;  ///< error: standard error of the loss
    QString group;                               ///< points of one protocol; several groups are not joined
  };
  explicit ParetoView(QWidget* parent = nullptr);
  void setPoints(const QVector<Point>& points, const QString& costTitle, const QString& lossTitle, bool logLoss);
  QVector<int> front() const { return front_; }  ///< indices of the points on the front of the first group

 private:
  QVector<int> front_;
};

}  // namespace qs
