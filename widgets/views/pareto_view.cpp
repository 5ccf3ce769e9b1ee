#include "widgets/views/pareto_view.h"

#include <algorithm>
#include <vector>

#include "analysis/pareto.h"

namespace qs {

ParetoView::ParetoView(QWidget* parent) : PlotView(parent) {
  setObjectName(QStringLiteral("pareto_plot"));
  setAccessibleName(tr("Quality against cost"));
  setToolTip(tr("Each point is a run; the line joins those that no other run beats in both quality and cost"));
}

void ParetoView::setPoints(const QVector<Point>& points, const QString& costTitle, const QString& lossTitle,
                           bool logLoss) {
  PlotSpec spec;
  spec.title = tr("%1 against %2").arg(lossTitle, costTitle);
  spec.x = {costTitle};
  spec.y = {lossTitle, logLoss};
  spec.emptyText = tr("Evaluate variants to see which are worth their bits.");
  front_.clear();
  QStringList groups;
  for (const Point& point : points) {
    if (!groups.contains(point.group)) groups << point.group;
  }
  for (int g = 0; g < groups.size(); ++g) {
    std::vector<analysis::ParetoPoint> values;
    QVector<int> members;
    for (int i = 0; i < points.size(); ++i) {
      if (points[i].group != groups[g]) continue;
      values.push_back({points[i].cost, points[i].loss});
      members.append(i);
    }
    const std::vector<int> front = analysis::pareto_front(values);
    PlotSeries line, others;
    line.name = groups.size() > 1 ? tr("front, %1").arg(groups[g]) : tr("front");
    others.name = groups.size() > 1 ? tr("other runs, %1").arg(groups[g]) : tr("other runs");
    line.color = others.color = g;
    line.spread = others.spread = PlotSeries::Spread::Bars;
    others.shape = PlotSeries::Shape::Points;
    for (int k = 0; k < members.size(); ++k) {
      const Point& point = points[members[k]];
      PlotPoint shown{point.cost,
                      point.loss,
                      point.loss - 1.96 * point.error,
                      point.loss + 1.96 * point.error,
                      PlotPoint::Marker::Hollow,
                      point.name};
      if (std::find(front.begin(), front.end(), k) == front.end()) others.points.append(shown);
    }
    for (const int k : front) {
      const Point& point = points[members[k]];
      line.points.append({point.cost, point.loss, point.loss - 1.96 * point.error, point.loss + 1.96 * point.error,
                          PlotPoint::Marker::Filled, point.name});
      if (g == 0) front_.append(members[k]);
    }
    spec.series.append(line);
    if (!others.points.isEmpty()) spec.series.append(others);
  }
  spec.labels = true;
  spec.legend = groups.size() > 1;
  setSpec(std::move(spec));
}

}  // namespace qs
