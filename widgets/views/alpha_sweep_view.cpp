#include "widgets/views/alpha_sweep_view.h"

#include <QComboBox>
#include <QDoubleSpinBox>
#include <QGridLayout>
#include <QHBoxLayout>
#include <QJsonObject>
#include <QKeyEvent>
#include <QLabel>
#include <QMenu>
#include <QPainter>
#include <QSlider>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "analysis/alpha_balance.h"
#include "analysis/alpha_curve.h"
#include "widgets/models/plain_table_model.h"
#include "widgets/models/results_model.h"
#include "widgets/plot_range.h"
#include "widgets/selection_hub.h"
#include "widgets/views/layer_alpha_map.h"

namespace qs {

namespace {

constexpr int kSliderSteps = 100;  // hundredths of alpha

QString metricName(const AlphaSweepResult& result) {
  return result.metric == "layer_mse" ? AlphaSweepView::tr("Output MSE") : metricTitle(result.metric);
}

/// The largest of each run of channels, so that at most 1,000 points remain and no outlier is lost.
QVector<PlotPoint> peaks(const std::vector<float>& values) {
  QVector<PlotPoint> points;
  const std::size_t run = std::max<std::size_t>(1, (values.size() + 999) / 1000);
  for (std::size_t begin = 0; begin < values.size(); begin += run) {
    std::size_t peak = begin;
    for (std::size_t i = begin; i < std::min(begin + run, values.size()); ++i) {
      if (values[i] > values[peak]) peak = i;
    }
    points.append({static_cast<double>(peak), values[peak]});
  }
  return points;
}

PlotExtent extentOf(const QVector<PlotSeries>& all) {
  PlotExtent extent;
  for (const PlotSeries& series : all) {
    for (const PlotPoint& point : series.points) {
      for (const double value : {point.y, point.low, point.high}) extent.add(value);
    }
  }
  return extent;
}

}  // namespace

AlphaSweepView::AlphaSweepView(SelectionHub& hub, QWidget* parent)
    : ViewBase(QStringLiteral("alpha"), tr("SmoothQuant alpha sweep"), hub, parent),
      table_(std::make_unique<PlainTableModel>()) {
  makeControls();
  auto* column = new QVBoxLayout(body());
  column->setContentsMargins(4, 0, 4, 4);
  column->setSpacing(2);
  warning_ = new QLabel(body());
  warning_->setObjectName(QStringLiteral("alpha_warning"));
  warning_->setWordWrap(true);
  warning_->hide();
  column->addWidget(warning_);
  grid_ = new QGridLayout;
  grid_->setSpacing(4);
  const auto plot = [&](const QString& name, const QString& accessible, const QString& tip) {
    auto* view = new PlotView(body());
    view->setObjectName(name);
    view->setAccessibleName(accessible);
    view->setToolTip(tip);
    connect(view, &PlotView::pointHovered, this,
            [this](int, int, const QString& text) { Q_EMIT readoutChanged(text); });
    return view;
  };
  sweep_ = plot(QStringLiteral("alpha_sweep_plot"), tr("Quality against alpha"),
                tr("Each point is a run from the original weights; the band is the 95 % interval of the paired "
                   "difference to full precision"));
  migration_ = plot(
      QStringLiteral("alpha_migration_plot"), tr("Channel maxima before and after smoothing"),
      tr("Per channel the largest activation and the largest weight, before and after folding at the slider's alpha"));
  balance_ =
      plot(QStringLiteral("alpha_balance_plot"), tr("Difficulty balance"),
           tr("Bound on the relative output error from rounding X and from rounding W, estimated from channel maxima"));
  layers_ = new LayerAlphaMap(body());
  layers_->setObjectName(QStringLiteral("alpha_layer_map"));
  layers_->setAccessibleName(tr("Local error by layer and alpha"));
  layers_->setToolTip(tr(
      "Local error of the folded linears; the line follows each layer's best alpha. Click to select layer and alpha"));
  grid_->addWidget(sweep_, 0, 0);
  grid_->addWidget(layers_, 0, 1);
  grid_->addWidget(migration_, 1, 0);
  grid_->addWidget(balance_, 1, 1);
  for (int i = 0; i < 2; ++i) {
    grid_->setColumnStretch(i, 1);
    grid_->setRowStretch(i, 1);
  }
  column->addLayout(grid_, 1);
  connect(sweep_, &PlotView::positionClicked, this,
          [this](double x, double) { setAlpha(std::round(x * 100.0) / 100.0); });
  connect(balance_, &PlotView::positionClicked, this,
          [this](double x, double) { setAlpha(std::round(x * 100.0) / 100.0); });
  connect(layers_, &LayerAlphaMap::readout, this, &ViewBase::readoutChanged);
  connect(layers_, &LayerAlphaMap::cellActivated, this, [this](int layer, double alpha) {
    setAlpha(alpha);
    layers_->setLayer(layer);
    if (isLinked()) this->hub().edit([&](Selection& s) { s.layer = layer; });
  });
  setSweeping(false);
  showSweep();
  showLayers();
  showMigration();
  showBalance();
  setState(ViewState::Empty, tr("No alpha sweep yet."), QStringLiteral("alpha.sweep"), tr("Run layer sweep"));
}

AlphaSweepView::~AlphaSweepView() = default;

void AlphaSweepView::makeControls() {
  QBoxLayout* row = controlsLayout();
  const auto combo = [&](const QString& name, const QString& accessible, const QString& tip) {
    auto* box = new QComboBox(this);
    box->setObjectName(name);
    box->setAccessibleName(accessible);
    box->setToolTip(tip);
    row->addWidget(box);
    return box;
  };
  const auto button = [&](const QString& name, const QString& text, const QString& tip) {
    auto* tool = new QToolButton(this);
    tool->setObjectName(name);
    tool->setText(text);
    tool->setAccessibleName(text);
    tool->setToolTip(tip);
    row->addWidget(tool);
    return tool;
  };
  mode_ = combo(QStringLiteral("alpha_mode"), tr("What is measured"),
                tr("Layer error compares the outputs of the folded linears (seconds). Perplexity runs the whole model "
                   "for each alpha"));
  mode_->addItems({tr("Layer error"), tr("Perplexity")});
  run_ = button(QStringLiteral("alpha_run"), tr("Sweep"),
                tr("Run the grid 0.35 to 0.90 in steps of 0.05; finished points are kept"));
  add_ = button(QStringLiteral("alpha_add"), tr("+ Point"), tr("Run the model at the slider's alpha"));
  refine_ = button(QStringLiteral("alpha_refine"), tr("Refine"), tr("Halve the grid around the minimum"));
  cancel_ = button(QStringLiteral("alpha_cancel"), tr("Cancel"), tr("Stop the sweep; finished points stay"));
  auto* label = new QLabel(tr("&α"), this);
  label->setToolTip(tr("Alpha"));
  row->addWidget(label);
  slider_ = new QSlider(Qt::Horizontal, this);
  slider_->setObjectName(QStringLiteral("alpha_slider"));
  slider_->setAccessibleName(tr("Alpha"));
  slider_->setToolTip(
      tr("0 keeps the difficulty in the activations, 1 moves all of it into the weights. Arrows step by 0.05, Shift by "
         "0.01"));
  slider_->setRange(0, kSliderSteps);
  slider_->setSingleStep(5);
  slider_->setPageStep(10);
  slider_->setTickInterval(10);
  slider_->setTickPosition(QSlider::TicksBelow);
  slider_->setValue(50);
  slider_->setMinimumWidth(80);
  slider_->installEventFilter(this);
  row->addWidget(slider_, 1);
  value_ = new QDoubleSpinBox(this);
  value_->setObjectName(QStringLiteral("alpha_value"));
  value_->setAccessibleName(tr("Alpha as a number"));
  value_->setToolTip(slider_->toolTip());
  value_->setRange(0.0, 1.0);
  value_->setDecimals(2);
  value_->setSingleStep(0.05);
  value_->setValue(0.5);
  row->addWidget(value_);
  label->setBuddy(value_);
  scheme_ = combo(QStringLiteral("alpha_scheme"), tr("Scheme of the layer map"),
                  tr("Bits of weights and activations that map and balance show"));
  pair_ = combo(QStringLiteral("alpha_pair"), tr("Folded pair"), tr("Norm whose channels the migration plot shows"));
  pair_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  pair_->setMinimumContentsLength(16);
  use_ =
      button(QStringLiteral("alpha_use"), tr("Use for a layer"),
             tr("Makes a plan of SmoothQuant that has this alpha in the layer of the chosen pair and keeps the others; "
                "the arrow offers each layer's best alpha of the map"));
  use_->setPopupMode(QToolButton::MenuButtonPopup);
  auto* menu = new QMenu(use_);
  best_ = menu->addAction(tr("Use each layer's best alpha"));
  best_->setObjectName(QStringLiteral("alpha_use_best"));
  use_->setMenu(menu);
  connect(use_, &QToolButton::clicked, this, [this] {
    const int layer = layerOfPair();
    if (layer < 0) return;
    std::vector<double> alphas(static_cast<std::size_t>(layers()), std::numeric_limits<double>::quiet_NaN());
    if (layer < static_cast<int>(alphas.size())) alphas[static_cast<std::size_t>(layer)] = alpha_;
    Q_EMIT layerAlphasRequested(alphas);
  });
  connect(best_, &QAction::triggered, this, [this] {
    if (const std::vector<double> alphas = bestAlphas(); !alphas.empty()) Q_EMIT layerAlphasRequested(alphas);
  });
  mode_->setMinimumWidth(mode_->sizeHint().width());
  scheme_->setSizeAdjustPolicy(QComboBox::AdjustToContents);

  connect(run_, &QToolButton::clicked, this, [this] { Q_EMIT sweepRequested(modelMode()); });
  connect(add_, &QToolButton::clicked, this, [this] { Q_EMIT pointsRequested({alpha_}, modelMode()); });
  connect(refine_, &QToolButton::clicked, this, [this] {
    if (result_.schemes.empty()) return;
    const auto alphas =
        analysis::refinement(result_.schemes[static_cast<std::size_t>(std::max(0, scheme_->currentIndex()))]);
    if (!alphas.empty()) Q_EMIT pointsRequested(alphas, modelMode());
  });
  connect(cancel_, &QToolButton::clicked, this, &ViewBase::cancelRequested);
  connect(slider_, &QSlider::valueChanged, this,
          [this](int value) { setAlpha(value / static_cast<double>(kSliderSteps)); });
  connect(value_, &QDoubleSpinBox::valueChanged, this, &AlphaSweepView::setAlpha);
  connect(mode_, &QComboBox::activated, this, &ViewBase::settingsChanged);
  connect(scheme_, &QComboBox::activated, this, [this] {
    showLayers();
    showBalance();
    Q_EMIT settingsChanged();
  });
  connect(pair_, &QComboBox::activated, this, [this] {
    showMigration();
    showBalance();
    const int layer = layerOfPair();
    layers_->setLayer(layer);
    if (isLinked() && layer >= 0) this->hub().edit([&](Selection& s) { s.layer = layer; });
    Q_EMIT settingsChanged();
  });
}

bool AlphaSweepView::eventFilter(QObject* watched, QEvent* event) {
  if (watched == slider_ && event->type() == QEvent::KeyPress) {
    auto* key = static_cast<QKeyEvent*>(event);
    const int step = key->modifiers().testFlag(Qt::ShiftModifier) ? 1 : 5;
    if (key->key() == Qt::Key_Left || key->key() == Qt::Key_Down) {
      slider_->setValue(slider_->value() - step);
      return true;
    }
    if (key->key() == Qt::Key_Right || key->key() == Qt::Key_Up) {
      slider_->setValue(slider_->value() + step);
      return true;
    }
  }
  return ViewBase::eventFilter(watched, event);
}

int AlphaSweepView::layers() const {
  int count = 0;
  for (const MigrationInput& input : inputs_) {
    const QStringList parts = QString::fromStdString(input.pair).split(u'.');
    if (parts.size() > 1) count = std::max(count, parts[1].toInt() + 1);
  }
  return count;
}

std::vector<double> AlphaSweepView::bestAlphas() const {
  const int index = scheme_->currentIndex();
  if (index < 0 || index >= static_cast<int>(result_.schemes.size())) return {};
  const AlphaScheme& scheme = result_.schemes[static_cast<std::size_t>(index)];
  std::vector<double> alphas;
  bool any = false;
  for (const int best : analysis::argmin_path(
           analysis::layer_alpha_map(scheme, result_.layers, static_cast<std::int64_t>(result_.pairs.size()), -1))) {
    any = any || best >= 0;
    alphas.push_back(best >= 0 ? scheme.points[static_cast<std::size_t>(best)].alpha
                               : std::numeric_limits<double>::quiet_NaN());
  }
  return any ? alphas : std::vector<double>{};
}

void AlphaSweepView::showUse() {
  const int layer = layerOfPair();
  const QString text = layer >= 0 ? tr("Use %1 for layer %2").arg(alpha_, 0, 'f', 2).arg(layer) : tr("Use for a layer");
  use_->setText(text);
  use_->setAccessibleName(text);
  use_->setEnabled(layer >= 0);
  best_->setEnabled(!bestAlphas().empty());
}

bool AlphaSweepView::modelMode() const { return mode_->currentIndex() == 1; }

void AlphaSweepView::setAlpha(double alpha) {
  alpha = std::clamp(std::round(alpha * 100.0) / 100.0, 0.0, 1.0);
  if (std::abs(alpha - alpha_) < 1e-9) return;
  alpha_ = alpha;
  const QSignalBlocker quietSlider(slider_), quietValue(value_);
  slider_->setValue(static_cast<int>(std::lround(alpha * kSliderSteps)));
  value_->setValue(alpha);
  layers_->setAlpha(alpha);
  showSweep();
  showMigration();
  showBalance();
  if (isLinked()) hub().edit([&](Selection& s) { s.alpha = alpha; });
  Q_EMIT alphaChanged(alpha);
  Q_EMIT settingsChanged();
}

void AlphaSweepView::selectionChanged() {
  const Selection& selection = hub().selection();
  setAlpha(selection.alpha);
  layers_->setLayer(selection.layer);
  const QString prefix = QStringLiteral("layers.%1.").arg(selection.layer);
  if (pair_->currentText().startsWith(prefix)) return;
  for (int i = 0; i < pair_->count(); ++i) {
    if (!pair_->itemText(i).startsWith(prefix)) continue;
    pair_->setCurrentIndex(i);
    showMigration();
    showBalance();
    return;
  }
}

void AlphaSweepView::setResult(const AlphaSweepResult& result) {
  const int scheme = std::max(0, scheme_->currentIndex());
  result_ = result;
  scheme_->clear();
  for (const AlphaScheme& each : result.schemes) scheme_->addItem(QString::fromStdString(each.label));
  scheme_->setCurrentIndex(std::min(scheme, scheme_->count() - 1));
  scheme_->setMinimumWidth(scheme_->sizeHint().width());
  const QString warning = edgeWarning();
  warning_->setText(warning);
  warning_->setVisible(!warning.isEmpty());
  QPalette palette = warning_->palette();
  palette.setColor(QPalette::WindowText, FigureStyle::screen(*this).warning);
  warning_->setPalette(palette);
  showSweep();
  showLayers();
  showBalance();
}

void AlphaSweepView::setMigrationInputs(std::vector<MigrationInput> inputs) {
  const QString before = pair_->currentText();
  inputs_ = std::move(inputs);
  pair_->clear();
  for (const MigrationInput& input : inputs_) pair_->addItem(QString::fromStdString(input.pair));
  const int kept = pair_->findText(before);
  if (kept >= 0) pair_->setCurrentIndex(kept);
  showMigration();
  showBalance();
}

void AlphaSweepView::setSweeping(bool sweeping) {
  sweeping_ = sweeping;
  run_->setEnabled(!sweeping);
  add_->setEnabled(!sweeping);
  refine_->setEnabled(!sweeping);
  cancel_->setEnabled(sweeping);
  run_->setVisible(!sweeping);  // one takes the place of the other
  cancel_->setVisible(sweeping);
}

const MigrationInput* AlphaSweepView::pair() const {
  const int index = pair_->currentIndex();
  return index >= 0 && index < static_cast<int>(inputs_.size()) ? &inputs_[static_cast<std::size_t>(index)] : nullptr;
}

int AlphaSweepView::layerOfPair() const {
  const QStringList parts = pair_->currentText().split(u'.');
  return parts.size() > 1 ? parts[1].toInt() : -1;
}

QString AlphaSweepView::edgeWarning() const {
  QStringList lines;
  for (const AlphaScheme& scheme : result_.schemes) {
    const analysis::AlphaSummary summary = analysis::summarize_alpha(scheme);
    if (!summary.at_edge) continue;
    lines << tr("%1: the minimum lies on the edge of the grid (alpha %2). Add points beyond it before believing it.")
                 .arg(QString::fromStdString(scheme.label))
                 .arg(scheme.points[static_cast<std::size_t>(summary.best)].alpha);
  }
  return lines.join(u'\n');
}

void AlphaSweepView::showSweep() {
  PlotSpec spec;
  const bool perplexity = result_.metric != "layer_mse";
  spec.title = tr("(a) %1 against alpha").arg(metricName(result_));
  spec.x = {tr("alpha"), false, 0.0, 1.0};
  spec.y = {metricName(result_), log_y_ || !perplexity};
  spec.emptyText = tr("Points appear here as they finish.");
  if (!result_.schemes.empty()) {
    double low = 1.0, high = 0.0;
    for (const AlphaScheme& scheme : result_.schemes) {
      for (const AlphaPoint& point : scheme.points)
        low = std::min(low, point.alpha), high = std::max(high, point.alpha);
    }
    spec.x.low = std::max(0.0, std::floor((low - 0.02) * 20.0) / 20.0);
    spec.x.high = std::min(1.0, std::ceil((high + 0.02) * 20.0) / 20.0);
    if (alpha_ < spec.x.low) spec.x.low = alpha_;
    if (alpha_ > spec.x.high) spec.x.high = alpha_;
  }
  for (const AlphaScheme& scheme : result_.schemes) {
    const analysis::AlphaSummary summary = analysis::summarize_alpha(scheme);
    PlotSeries series;
    series.name = QString::fromStdString(scheme.label);
    series.spread = perplexity ? PlotSeries::Spread::Band : PlotSeries::Spread::None;
    double placeholder =
        perplexity && result_.full_precision > 0 ? result_.full_precision : std::numeric_limits<double>::quiet_NaN();
    if (summary.best >= 0) placeholder = scheme.points[static_cast<std::size_t>(summary.best)].value;
    for (std::size_t i = 0; i < scheme.points.size(); ++i) {
      const AlphaPoint& point = scheme.points[i];
      PlotPoint shown{point.alpha, point.value};
      switch (point.state) {
        case AlphaPoint::State::Pending:
          shown.y = placeholder;
          shown.marker = PlotPoint::Marker::Hollow;
          shown.note = tr("pending");
          break;
        case AlphaPoint::State::Failed:
          shown.y = placeholder;
          shown.marker = PlotPoint::Marker::Cross;
          shown.note = tr("failed: %1").arg(QString::fromStdString(point.failure));
          break;
        case AlphaPoint::State::Cached:
        case AlphaPoint::State::Done: {
          const bool cached = point.state == AlphaPoint::State::Cached;
          shown.marker = cached ? PlotPoint::Marker::Tick : PlotPoint::Marker::Filled;
          QStringList notes;
          if (cached) notes << tr("cached");
          if (static_cast<int>(i) == summary.best) {
            shown.marker = PlotPoint::Marker::Ringed;
            notes << tr("best");
          } else if (summary.tied[i]) {
            notes << tr("tied with the best");
          }
          shown.note = notes.join(QStringLiteral(", "));
          if (perplexity && point.high > point.low) {
            shown.low = point.low;
            shown.high = point.high;
          }
          break;
        }
      }
      series.points.append(shown);
    }
    spec.series.append(series);
    if (summary.best >= 0 && summary.tied_high > summary.tied_low) {
      spec.spans.append({summary.tied_low, summary.tied_high,
                         result_.schemes.size() > 1
                             ? QString()
                             : tr("tied with the best: %1 to %2").arg(summary.tied_low).arg(summary.tied_high)});
    }
  }
  if (perplexity && result_.full_precision > 0)
    spec.rules.append({result_.full_precision, tr("full precision %1").arg(result_.full_precision, 0, 'g', 5)});
  if (!spec.series.isEmpty()) spec.rules.append({alpha_, {}, true, false});
  if (spec.y.log) fitLogAxis(spec.y, extentOf(spec.series));
  sweep_->setSpec(std::move(spec));
}

void AlphaSweepView::showLayers() {
  const int index = scheme_->currentIndex();
  if (index < 0 || index >= static_cast<int>(result_.schemes.size())) {
    layers_->setMap({}, {}, {}, tr("(b) Local error by layer"));
    return;
  }
  const AlphaScheme& scheme = result_.schemes[static_cast<std::size_t>(index)];
  QVector<double> alphas;
  for (const AlphaPoint& point : scheme.points) alphas << point.alpha;
  auto map = analysis::layer_alpha_map(scheme, result_.layers, static_cast<std::int64_t>(result_.pairs.size()), -1);
  auto path = analysis::argmin_path(map);
  layers_->setMap(alphas, std::move(map), std::move(path),
                  tr("(b) Local error by layer, %1, sum over pairs").arg(QString::fromStdString(scheme.label)));
  layers_->setAlpha(alpha_);
  layers_->setLayer(hub().selection().layer);
  showUse();
}

void AlphaSweepView::showMigration() {
  showUse();
  PlotSpec spec;
  spec.title = tr("(c) Channel maxima at alpha %1").arg(alpha_, 0, 'f', 2);
  spec.x = {tr("channel"), false, 0.0, std::numeric_limits<double>::quiet_NaN(), true};
  spec.y = {tr("largest |X|, |W| [raw units]"), true};
  spec.emptyText = tr("Channel maxima come from a capture or a calibration run of the model.");
  if (const MigrationInput* input = pair()) {
    const analysis::Migration moved = analysis::migrate(input->activation_absmax, input->weight_absmax, alpha_);
    spec.x.high = std::max<double>(1.0, static_cast<double>(input->activation_absmax.size()) - 1.0);
    spec.title += QStringLiteral(" · ") + pair_->currentText();
    const auto line = [&](const QString& name, const std::vector<float>& values, bool before, int color, float peak) {
      PlotSeries series;
      series.name = tr("%1, peak %2").arg(name).arg(peak, 0, 'g', 3);
      series.points = peaks(values);
      series.dashed = before;
      series.color = color;
      spec.series.append(series);
    };
    line(tr("|X| before"), input->activation_absmax, true, 4, moved.activation_peak_before);
    line(tr("|X| after"), moved.activation_after, false, 1, moved.activation_peak_after);
    line(tr("|W| before"), input->weight_absmax, true, 3, moved.weight_peak_before);
    line(tr("|W| after"), moved.weight_after, false, 0, moved.weight_peak_after);
  }
  migration_->setSpec(std::move(spec));
}

void AlphaSweepView::showBalance() {
  PlotSpec spec;
  int bits_a = 8, bits_w = 8;
  const int index = scheme_->currentIndex();
  if (index >= 0 && index < static_cast<int>(result_.schemes.size())) {
    bits_a = result_.schemes[static_cast<std::size_t>(index)].bits_a;
    bits_w = result_.schemes[static_cast<std::size_t>(index)].bits_w;
  }
  spec.title = tr("(d) Difficulty balance, W%1A%2").arg(bits_w).arg(bits_a);
  spec.x = {tr("alpha"), false, 0.0, 1.0};
  spec.y = {tr("relative output error, bound"), true};
  spec.emptyText = tr("Channel maxima come from a capture or a calibration run of the model.");
  if (const MigrationInput* input = pair()) {
    spec.title += QStringLiteral(" · ") + pair_->currentText();
    PlotSeries x, w, both;
    x.name = tr("from rounding X");
    w.name = tr("from rounding W");
    both.name = tr("together");
    x.color = 1;
    w.color = 0;
    both.color = 5;
    both.dashed = true;
    for (const analysis::DifficultyPoint& point :
         analysis::difficulty_curve(input->activation_absmax, input->weight_absmax, 101, bits_a, bits_w)) {
      x.points.append({point.alpha, point.activation});
      w.points.append({point.alpha, point.weight});
      both.points.append({point.alpha, point.total()});
    }
    spec.series = {x, w, both};
    fitLogAxis(spec.y, extentOf(spec.series));
    spec.rules.append({alpha_, {}, true, false});
  }
  balance_->setSpec(std::move(spec));
}

void AlphaSweepView::paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.fillRect(target, style.background);
  const double w = target.width() / 2, h = target.height() / 2;
  sweep_->paint(painter, QRectF(target.left(), target.top(), w, h), style);
  layers_->paint(painter, QRectF(target.left() + w, target.top(), w, h), style);
  migration_->paint(painter, QRectF(target.left(), target.top() + h, w, h), style);
  balance_->paint(painter, QRectF(target.left() + w, target.top() + h, w, h), style);
}

QAbstractTableModel* AlphaSweepView::dataTable() {
  QVector<PlainTableModel::Row> rows;
  static const char* const kStates[] = {"pending", "done", "failed", "cached"};
  for (const AlphaScheme& scheme : result_.schemes) {
    const analysis::AlphaSummary summary = analysis::summarize_alpha(scheme);
    for (std::size_t i = 0; i < scheme.points.size(); ++i) {
      const AlphaPoint& point = scheme.points[i];
      const bool done = point.state == AlphaPoint::State::Done || point.state == AlphaPoint::State::Cached;
      const auto number = [&](double value) { return done ? QVariant(value) : QVariant(); };
      rows.append({QString::fromStdString(scheme.label), point.alpha,
                   QString::fromLatin1(kStates[static_cast<int>(point.state)]), number(point.value), number(point.low),
                   number(point.high), static_cast<int>(static_cast<int>(i) == summary.best),
                   static_cast<int>(summary.tied[i]), QString::fromStdString(point.failure)});
    }
  }
  table_->setTable({tr("scheme"), tr("alpha"), tr("state"), metricName(result_), tr("95 % CI low"), tr("95 % CI high"),
                    tr("best"), tr("tied with best"), tr("failure")},
                   std::move(rows));
  return table_.get();
}

QString AlphaSweepView::accessibleSummary() const {
  QStringList parts;
  for (const AlphaScheme& scheme : result_.schemes) {
    const analysis::AlphaSummary summary = analysis::summarize_alpha(scheme);
    if (summary.best < 0) continue;
    const AlphaPoint& best = scheme.points[static_cast<std::size_t>(summary.best)];
    parts << tr("%1: lowest %2 %3 at alpha %4, tied from %5 to %6")
                 .arg(QString::fromStdString(scheme.label), metricName(result_))
                 .arg(best.value, 0, 'g', 5)
                 .arg(best.alpha)
                 .arg(summary.tied_low)
                 .arg(summary.tied_high);
  }
  return parts.isEmpty() ? tr("No finished point yet") : parts.join(QStringLiteral("; "));
}

QJsonObject AlphaSweepView::saveSettings() const {
  return {{QStringLiteral("alpha"), alpha_},
          {QStringLiteral("modelMode"), modelMode()},
          {QStringLiteral("scheme"), std::max(0, scheme_->currentIndex())},
          {QStringLiteral("pair"), pair_->currentText()},
          {QStringLiteral("relative"), layers_->relative()},
          {QStringLiteral("log"), log_y_}};
}

void AlphaSweepView::restoreSettings(const QJsonObject& settings) {
  const QSignalBlocker quiet(this);
  mode_->setCurrentIndex(settings.value(QStringLiteral("modelMode")).toBool() ? 1 : 0);
  const int pair = pair_->findText(settings.value(QStringLiteral("pair")).toString());
  if (pair >= 0) pair_->setCurrentIndex(pair);
  const int scheme = settings.value(QStringLiteral("scheme")).toInt();
  if (scheme >= 0 && scheme < scheme_->count()) scheme_->setCurrentIndex(scheme);
  layers_->setRelative(settings.value(QStringLiteral("relative")).toBool(true));
  log_y_ = settings.value(QStringLiteral("log")).toBool();
  setAlpha(settings.value(QStringLiteral("alpha")).toDouble(alpha_));
  showSweep();
  showLayers();
  showMigration();
  showBalance();
}

void AlphaSweepView::setLogScale(bool log) {
  log_y_ = log;
  showSweep();
  Q_EMIT settingsChanged();
}

}  // namespace qs
