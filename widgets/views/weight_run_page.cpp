#include "widgets/views/weight_run_page.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QLabel>
#include <QPainter>
#include <QSignalBlocker>
#include <QSplitter>
#include <QTableView>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "widgets/models/plain_table_model.h"
#include "widgets/paint/axes.h"
#include "widgets/plot_range.h"
#include "widgets/plot_view.h"
#include "widgets/views/linear_names.h"

namespace qs {
namespace {

constexpr int kColors = 6;  // of seriesColor(): further kinds are dashed

QString gib(std::int64_t bytes) { return QString::number(static_cast<double>(bytes) / (1 << 30), 'f', 2); }

QString duration(double seconds) {
  if (seconds < 0.95) return WeightRunPage::tr("%1 s").arg(seconds, 0, 'f', 1);
  const auto whole = static_cast<qint64>(std::llround(seconds));
  if (whole < 60) return WeightRunPage::tr("%1 s").arg(whole);
  if (whole < 3600) return WeightRunPage::tr("%1 min %2 s").arg(whole / 60).arg(whole % 60);
  return WeightRunPage::tr("%1 h %2 min").arg(whole / 3600).arg(whole % 3600 / 60);
}

QVariant number(double value) { return std::isfinite(value) ? QVariant(value) : QVariant(); }

/// Some methods know losses but no round to nearest to compare with.
bool has_ratios(const std::vector<LayerProgress>& linears) {
  return std::any_of(linears.begin(), linears.end(),
                     [](const LayerProgress& linear) { return std::isfinite(analysis::loss_ratio(linear)); });
}

double plotted(const LayerProgress& linear, bool ratios) {
  const double value = ratios ? analysis::loss_ratio(linear) : linear.loss;
  return value > 0.0 ? value : std::numeric_limits<double>::quiet_NaN();
}

QString notes_of(const LayerProgress& linear) {
  QStringList notes;
  for (const std::string& note : linear.notes) notes << QString::fromStdString(note);
  return notes.join(QLatin1Char(' '));
}

}  // namespace

WeightRunPage::WeightRunPage(QWidget* parent) : QWidget(parent), model_(new PlainTableModel(this)) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(6, 2, 6, 4);
  column->setSpacing(4);
  auto* row = new QHBoxLayout;
  auto* label = new QLabel(tr("Plan"), this);
  variants_ = new QComboBox(this);
  variants_->setObjectName(QStringLiteral("run_variant"));
  variants_->setAccessibleName(tr("Plan whose quantization is shown"));
  variants_->setToolTip(tr("The plan with quantized weights whose run is shown"));
  variants_->setSizeAdjustPolicy(QComboBox::AdjustToContents);
  label->setBuddy(variants_);
  row->addWidget(label);
  row->addWidget(variants_);
  const auto button = [&](const char* name, const QString& text, const QString& tip) {
    auto* tool = new QToolButton(this);
    tool->setObjectName(QLatin1String(name));
    tool->setText(text);
    tool->setAccessibleName(text);
    tool->setToolTip(tip);
    row->addWidget(tool);
    return tool;
  };
  start_ =
      button("run_start", tr("Quantize"),
             tr("Quantizes layer after layer; finished layers are kept, so that a cancelled run goes on from them"));
  cancel_ = button("run_cancel", tr("Cancel"), tr("Stops within a second; finished layers are kept"));
  retry_ = button("run_retry", tr("Retry layer with other settings..."),
                  tr("Quantizes the layer of the chosen row again with other settings of the same method. Later layers "
                     "stay as they are: their inputs came from the old one"));
  row->addStretch(1);
  column->addLayout(row);
  const auto line = [&](const char* name) {
    auto* text = new QLabel(this);
    text->setObjectName(QLatin1String(name));
    text->setWordWrap(true);
    text->setTextInteractionFlags(Qt::TextSelectableByMouse);
    column->addWidget(text);
    return text;
  };
  facts_ = line("run_facts");
  forecast_ = line("run_forecast");
  auto* split = new QSplitter(Qt::Vertical, this);
  split->setChildrenCollapsible(false);
  plot_ = new PlotView(split);
  plot_->setObjectName(QStringLiteral("run_plot"));
  plot_->setAccessibleName(tr("Proxy loss against round to nearest"));
  plot_->setToolTip(
      tr("Each point is a finished linear: its proxy loss ½ tr(ΔW H ΔWᵀ) divided by that of round to nearest on the "
         "same grid. Hollow: read from a checkpoint. Crossed: with a note, see the table. Click a point to select it"));
  rows_ = new QTableView(split);
  rows_->setObjectName(QStringLiteral("run_rows"));
  rows_->setAccessibleName(tr("Finished linears"));
  rows_->setToolTip(
      tr("One row a finished linear; the newest at the end. Enter or double click selects layer and linear"));
  rows_->setModel(model_);
  rows_->setSelectionBehavior(QAbstractItemView::SelectRows);
  rows_->setSelectionMode(QAbstractItemView::SingleSelection);
  rows_->setEditTriggers(QAbstractItemView::NoEditTriggers);
  rows_->setTabKeyNavigation(false);
  rows_->verticalHeader()->hide();
  rows_->verticalHeader()->setDefaultSectionSize(20);
  rows_->horizontalHeader()->setStretchLastSection(true);
  split->addWidget(plot_);
  split->addWidget(rows_);
  split->setStretchFactor(0, 3);
  split->setStretchFactor(1, 2);
  split->setSizes({360, 220});
  column->addWidget(split, 1);
  connect(variants_, &QComboBox::activated, this, [this] { Q_EMIT variantChosen(variant()); });
  connect(start_, &QToolButton::clicked, this, [this] { Q_EMIT startRequested(variant()); });
  connect(cancel_, &QToolButton::clicked, this, &WeightRunPage::cancelRequested);
  connect(retry_, &QToolButton::clicked, this, [this] { Q_EMIT retryLayerRequested(variant(), chosenLayer()); });
  connect(rows_->selectionModel(), &QItemSelectionModel::currentRowChanged, this, [this] { refresh(); });
  const auto activate = [this](std::size_t index) {
    if (index >= run_.linears.size()) return;
    const LayerProgress& linear = run_.linears[index];
    Q_EMIT layerActivated(static_cast<int>(linear.layer), QString::fromStdString(analysis::linear_kind(linear.linear)));
  };
  connect(rows_, &QTableView::activated, this,
          [activate](const QModelIndex& at) { activate(static_cast<std::size_t>(at.row())); });
  connect(plot_, &PlotView::pointHovered, this, [this](int, int, const QString& text) { Q_EMIT readout(text); });
  connect(plot_, &PlotView::pointActivated, this, [this, activate](int series, int index) {
    const std::vector<std::string> kinds = analysis::linear_kinds(run_.linears);
    if (series < 0 || series >= static_cast<int>(kinds.size())) return;
    int seen = 0;
    for (std::size_t i = 0; i < run_.linears.size(); ++i) {
      if (analysis::linear_kind(run_.linears[i].linear) != kinds[static_cast<std::size_t>(series)] ||
          !std::isfinite(plotted(run_.linears[i], has_ratios(run_.linears))))
        continue;
      if (seen++ != index) continue;
      rows_->selectRow(static_cast<int>(i));
      return activate(i);
    }
  });
  refreshTable();
  refresh();
}

void WeightRunPage::setVariants(const QList<std::pair<QString, QString>>& variants) {
  const QString before = variant().isEmpty() ? wanted_ : variant();
  const QSignalBlocker quiet(variants_);
  variants_->clear();
  for (const auto& [id, label] : variants) variants_->addItem(label, id);
  variants_->setCurrentIndex(std::max(variants.isEmpty() ? -1 : 0, variants_->findData(before)));
}

QString WeightRunPage::variant() const { return variants_->currentData().toString(); }

void WeightRunPage::setVariant(const QString& id) {
  wanted_ = id;
  const QSignalBlocker quiet(variants_);
  if (const int index = variants_->findData(id); index >= 0) variants_->setCurrentIndex(index);
}

void WeightRunPage::setRun(const ShownWeightRun& run) {
  const bool grew = run.linears.size() != run_.linears.size();
  run_ = run;
  refreshTable();
  refreshPlot();
  refresh();
  if (grew && run.state == ShownWeightRun::State::Running) rows_->scrollToBottom();
}

int WeightRunPage::chosenLayer() const {
  const int row = rows_->currentIndex().row();
  if (row < 0 || row >= static_cast<int>(run_.linears.size())) return -1;
  return static_cast<int>(run_.linears[static_cast<std::size_t>(row)].layer);
}

QString WeightRunPage::factsText() const {
  using State = ShownWeightRun::State;
  const analysis::RunSummary s = analysis::summarize_run(run_.linears, run_.linears_per_layer, run_.elapsed_seconds,
                                                         run_.forecast ? run_.forecast->seconds : 0.0);
  QStringList facts;
  switch (run_.state) {
    case State::None:
      if (variants_->count() == 0)
        return tr("There is no plan with quantized weights yet. Make one with Quantize › New Plan.");
      if (!run_.reason.isEmpty()) return run_.reason;
      return run_.layer_by_layer
                 ? tr("Not quantized in this session. Press Quantize to start; layers that an earlier run finished are "
                      "taken over.")
                 : tr("This method quantizes all weights in one go: there is no progress by layer. Errors shows what "
                      "it "
                      "does to each linear.");
    case State::Waiting:
      return tr("Waiting: loading the model and the calibration text.");
    case State::Running:
      facts << tr("Running");
      break;
    case State::Finished:
      facts << tr("Finished");
      break;
    case State::Stopped:
      facts << tr("Stopped: %1 Press Resume to go on from the last finished layer.").arg(run_.reason);
      break;
  }
  if (s.done > 0) {
    facts << (s.total > 0
                  ? tr("layer %1 of %2, %3 of %4 linears").arg(s.layer + 1).arg(s.layers).arg(s.done).arg(s.total)
                  : tr("layer %1 of %2, %3 linears").arg(s.layer + 1).arg(s.layers).arg(s.done));
    if (s.resumed > 0) facts << tr("%1 from the checkpoint").arg(s.resumed);
    if (std::isfinite(s.loss_ratio)) facts << tr("loss %1 × RTN (geometric mean)").arg(number_text(s.loss_ratio, 3));
    if (s.worse > 0) facts << tr("%1 worse than RTN").arg(s.worse);
    if (s.fallbacks > 0) facts << tr("%1 with notes").arg(s.fallbacks);
    facts << tr("%1 bit").arg(s.effective_bits, 0, 'f', 2);
  }
  QString time = tr("%1 elapsed").arg(duration(run_.elapsed_seconds));
  if (run_.state == State::Running && s.left_seconds >= 0.0)
    time += tr(", about %1 left").arg(duration(s.left_seconds));
  facts << time;
  return facts.join(QStringLiteral(" · "));
}

QString WeightRunPage::forecastText() const {
  if (!run_.forecast) return {};
  const WeightForecast& f = *run_.forecast;
  QString text =
      tr("Forecast: %1 GiB beside the model at its worst (hidden states %2, Hessians %3), %4 GiB can be "
         "allocated; about %5.")
          .arg(gib(f.bytes), gib(f.hidden_bytes), gib(f.hessian_bytes), gib(f.available_bytes), duration(f.seconds));
  if (!run_.calibration.isEmpty()) text += tr(" Calibrated on %1.").arg(run_.calibration);
  return text;
}

QString WeightRunPage::summary() const { return factsText(); }

QAbstractTableModel* WeightRunPage::table() { return model_; }

void WeightRunPage::refresh() {
  using State = ShownWeightRun::State;
  const bool busy = run_.state == State::Running || run_.state == State::Waiting;
  start_->setText(run_.state == State::Stopped    ? tr("Resume")
                  : run_.state == State::Finished ? tr("Done")
                                                  : tr("Quantize"));
  start_->setAccessibleName(start_->text());
  start_->setEnabled(!busy && run_.state != State::Finished && variants_->count() > 0);
  start_->setVisible(!busy);
  cancel_->setVisible(busy);
  const int layer = chosenLayer();
  retry_->setEnabled(!busy && run_.layer_by_layer && layer >= 0 && !run_.checkpoint.isEmpty());
  retry_->setText(layer >= 0 ? tr("Retry layer %1 with other settings...").arg(layer)
                             : tr("Retry layer with other settings..."));
  facts_->setText(factsText());
  const QString forecast = forecastText();
  forecast_->setText(forecast);
  forecast_->setVisible(!forecast.isEmpty());
}

void WeightRunPage::refreshPlot() {
  PlotSpec spec;
  const bool ratios = has_ratios(run_.linears) || run_.linears.empty();
  spec.title = ratios ? tr("Proxy loss against round to nearest") : tr("Loss of every finished linear");
  if (!run_.setup.isEmpty()) spec.title += QStringLiteral(" · ") + run_.setup;
  spec.x = {tr("layer"), false, -0.4, std::numeric_limits<double>::quiet_NaN(), true};
  spec.y = {ratios ? tr("loss / RTN's loss") : tr("loss"), true};
  spec.emptyText = run_.layer_by_layer ? tr("Every finished linear appears here as a point.")
                                       : tr("This method does not go layer by layer.");
  const std::vector<std::string> kinds = analysis::linear_kinds(run_.linears);
  PlotExtent extent;
  std::int64_t layers = 1;
  for (std::size_t k = 0; k < kinds.size(); ++k) {
    PlotSeries series;
    series.name = short_linear_name(kinds[k]);
    series.color = static_cast<int>(k) % kColors;
    series.dashed = k >= kColors;
    for (const LayerProgress& linear : run_.linears) {
      layers = std::max(layers, linear.layers);
      if (analysis::linear_kind(linear.linear) != kinds[k]) continue;
      PlotPoint point{static_cast<double>(linear.layer), plotted(linear, ratios)};
      if (!std::isfinite(point.y)) continue;
      point.marker = linear.resumed          ? PlotPoint::Marker::Hollow
                     : !linear.notes.empty() ? PlotPoint::Marker::Cross
                                             : PlotPoint::Marker::Filled;
      QStringList notes{QString::fromStdString(linear.linear)};
      if (linear.resumed) notes << tr("from the checkpoint");
      if (!linear.notes.empty()) notes << notes_of(linear);
      point.note = notes.join(QStringLiteral(", "));
      extent.add(point.y);
      series.points.append(point);
    }
    spec.series.append(series);
  }
  spec.x.high = static_cast<double>(layers) - 0.6;
  if (ratios && !run_.linears.empty()) {
    extent.add(1.0);
    spec.rules.append({1.0, tr("round to nearest"), false, true});
  }
  if (!run_.linears.empty()) fitLogAxis(spec.y, extent);
  plot_->setSpec(std::move(spec));
}

void WeightRunPage::refreshTable() {
  QVector<PlainTableModel::Row> rows;
  for (const LayerProgress& linear : run_.linears)
    rows.append({static_cast<qint64>(linear.layer), short_linear_name(analysis::linear_kind(linear.linear)),
                 number(linear.loss), number(linear.rtn_loss), number(analysis::loss_ratio(linear)),
                 number(linear.effective_bits), number(linear.damping), static_cast<qint64>(linear.tokens),
                 number(linear.seconds), linear.resumed ? tr("yes") : tr("no"), notes_of(linear)});
  const int kept = rows_->currentIndex().row();
  model_->setTable({tr("layer"), tr("linear"), tr("loss"), tr("RTN's loss"), tr("loss / RTN's"), tr("bits"),
                    tr("damping"), tr("tokens"), tr("seconds"), tr("resumed"), tr("notes")},
                   std::move(rows));
  if (kept >= 0 && kept < model_->rowCount()) rows_->selectRow(kept);
  rows_->resizeColumnsToContents();
}

void WeightRunPage::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  painter.fillRect(target, style.background);
  painter.setFont(style.font);
  QString text = factsText();
  if (const QString forecast = forecastText(); !forecast.isEmpty()) text += QLatin1Char('\n') + forecast;
  const QRectF needed = painter.boundingRect(target.adjusted(4, 0, -4, 0), Qt::AlignLeft | Qt::TextWordWrap, text);
  plot_->paint(painter, target.adjusted(0, 0, 0, -needed.height() - 6), style);
  painter.setPen(style.muted);
  painter.drawText(
      QRectF(target.left() + 4, target.bottom() - needed.height() - 2, target.width() - 8, needed.height() + 2),
      Qt::AlignLeft | Qt::TextWordWrap, text);
  painter.restore();
}

}  // namespace qs
