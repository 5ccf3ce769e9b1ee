#pragma once

#include <QString>
#include <QVector>
#include <QWidget>

#include "widgets/plot_view.h"

class QComboBox;

namespace qs {

/// Per token of a lock-step replay, one line a variant: KL divergence or change of the token's probability.
class DivergenceTimeline : public QWidget {
  Q_OBJECT
 public:
  enum class Metric { Kl, ProbabilityChange };
  struct Line {
    QString name;
    QVector<double> kl, probabilityChange;
    int divergence = -1;  ///< token at which the free run left the reference
    QString letter;       ///< of its column, for the label of the divergence; empty: the name
  };
  explicit DivergenceTimeline(QWidget* parent = nullptr);

  void setLines(QVector<Line> lines);
  const QVector<Line>& lines() const { return lines_; }
  void setMetric(Metric metric);
  Metric metric() const { return metric_; }
  void setCurrent(int token);
  void setEmptyText(const QString& text);
  PlotView* plot() { return plot_; }
  /// The plot as it stands, also for exports. Lines with over 1,200 tokens are drawn as the largest value of each run.
  PlotSpec makeSpec() const;

 Q_SIGNALS:
  void tokenActivated(int token);
  void metricChanged();
  void readout(const QString& text);

 private:
  void refresh();
  QVector<Line> lines_;
  Metric metric_ = Metric::Kl;
  int current_ = -1;
  QString empty_;
  PlotView* plot_;
  QComboBox* choice_;
};

}  // namespace qs
