#include "widgets/views/divergence_timeline.h"

#include <QComboBox>
#include <QVBoxLayout>
#include <cmath>

namespace qs {

DivergenceTimeline::DivergenceTimeline(QWidget* parent) : QWidget(parent) {
  setObjectName(QStringLiteral("divergence_timeline"));
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(0, 0, 0, 0);
  column->setSpacing(2);
  plot_ = new PlotView(this);
  plot_->setObjectName(QStringLiteral("timeline_plot"));
  plot_->setAccessibleName(tr("Divergence timeline"));
  plot_->setToolTip(tr("Divergence from the reference at each token; click to select the token in all columns"));
  choice_ = new QComboBox(plot_);
  choice_->setObjectName(QStringLiteral("timeline_metric"));
  choice_->setAccessibleName(tr("Metric of the timeline"));
  choice_->setToolTip(
      tr("KL(reference || variant) at each token, or the change of the probability of the reference's token"));
  choice_->addItem(tr("KL divergence"));
  choice_->addItem(tr("Probability change"));
  choice_->move(4, 2);
  setMinimumHeight(136);
  column->addWidget(plot_, 1);
  connect(choice_, &QComboBox::activated, this, [this](int index) {
    setMetric(static_cast<Metric>(index));
    Q_EMIT metricChanged();
  });
  connect(plot_, &PlotView::positionClicked, this,
          [this](double x, double) { Q_EMIT tokenActivated(static_cast<int>(std::lround(x))); });
  connect(plot_, &PlotView::pointHovered, this, [this](int, int, const QString& text) { Q_EMIT readout(text); });
  refresh();
}

void DivergenceTimeline::setLines(QVector<Line> lines) {
  lines_ = std::move(lines);
  refresh();
}

void DivergenceTimeline::setMetric(Metric metric) {
  metric_ = metric;
  choice_->setCurrentIndex(static_cast<int>(metric));
  refresh();
}

void DivergenceTimeline::setCurrent(int token) {
  if (token == current_) return;
  current_ = token;
  refresh();
}

void DivergenceTimeline::setEmptyText(const QString& text) {
  empty_ = text;
  refresh();
}

PlotSpec DivergenceTimeline::makeSpec() const {
  PlotSpec spec;
  const bool kl = metric_ == Metric::Kl;
  spec.x = {tr("Generated token"), false, 0.0, std::numeric_limits<double>::quiet_NaN(), true};
  spec.y = {kl ? tr("KL [nats]") : tr("Δp of the token"), kl};
  spec.emptyText = empty_;
  for (const Line& line : lines_) {
    const QVector<double>& values = kl ? line.kl : line.probabilityChange;
    PlotSeries series;
    series.name = line.letter.isEmpty() ? line.name : line.letter + u' ' + line.name;
    const qsizetype run = std::max<qsizetype>(1, (values.size() + 1199) / 1200);
    for (qsizetype begin = 0; begin < values.size(); begin += run) {
      qsizetype peak = begin;
      for (qsizetype i = begin; i < std::min(begin + run, values.size()); ++i) {
        if (std::abs(values[i]) > std::abs(values[peak])) peak = i;
      }
      // KL of equal distributions is rounding noise around zero; below 1e-8 it is drawn on the axis.
      PlotPoint point{static_cast<double>(peak), kl && values[peak] < 1e-8 ? 0.0 : values[peak]};
      if (peak == line.divergence) point.marker = PlotPoint::Marker::Ringed, point.note = tr("first divergence");
      series.points.append(point);
    }
    spec.series.append(series);
    if (line.divergence >= 0 && !series.points.isEmpty()) {
      spec.rules.append({static_cast<double>(line.divergence),
                         tr("%1 diverges").arg(line.letter.isEmpty() ? line.name : line.letter), true, true});
    }
  }
  if (current_ >= 0 && !spec.series.isEmpty()) spec.rules.append({static_cast<double>(current_), {}, true, false});
  return spec;
}

void DivergenceTimeline::refresh() {
  PlotSpec spec = makeSpec();
  spec.corner = QSizeF(choice_->sizeHint().width() + 14.0, choice_->sizeHint().height() + 4.0);
  plot_->setSpec(std::move(spec));
}

}  // namespace qs
