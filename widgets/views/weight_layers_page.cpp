#include "widgets/views/weight_layers_page.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QPainter>
#include <QSignalBlocker>
#include <QSpinBox>
#include <QSplitter>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "widgets/models/plain_table_model.h"
#include "widgets/paint/axes.h"
#include "widgets/plot_view.h"
#include "widgets/views/heatmap_canvas.h"

namespace qs {
namespace {

constexpr int kColors = 6;  // of seriesColor(): further kinds are dashed

QString metric_text(const QString& id) {
  if (id == QLatin1String("sqnr_o")) return WeightLayersPage::tr("SQNR of the output [dB]");
  if (id == QLatin1String("sqnr_w")) return WeightLayersPage::tr("SQNR of the weight [dB]");
  if (id == QLatin1String("sqnr_x")) return WeightLayersPage::tr("SQNR of the input's rounding [dB]");
  if (id == QLatin1String("mse_o")) return WeightLayersPage::tr("MSE of the output");
  if (id == QLatin1String("mse_w")) return WeightLayersPage::tr("MSE of the weight");
  if (id == QLatin1String("mse_x")) return WeightLayersPage::tr("MSE of the input's rounding");
  if (id == QLatin1String("sqnr_db")) return WeightLayersPage::tr("SQNR of the input [dB]");
  if (id == QLatin1String("mse")) return WeightLayersPage::tr("MSE of the input");
  const QString side =
      id.endsWith(QLatin1String("_x")) ? WeightLayersPage::tr("input") : WeightLayersPage::tr("weight");
  if (id.startsWith(QLatin1String("kurt"))) return WeightLayersPage::tr("excess kurtosis of the %1").arg(side);
  if (id.startsWith(QLatin1String("std"))) return WeightLayersPage::tr("standard deviation of the %1").arg(side);
  if (id.startsWith(QLatin1String("max"))) return WeightLayersPage::tr("maximum of the %1").arg(side);
  if (id.startsWith(QLatin1String("min"))) return WeightLayersPage::tr("minimum of the %1").arg(side);
  return WeightLayersPage::tr("mean of the %1").arg(side);
}

QStringList metrics_of(WeightLayersPage::Error error) {
  if (error == WeightLayersPage::Error::Accumulated) return {QStringLiteral("sqnr_db"), QStringLiteral("mse")};
  QStringList ids;
  for (const char* id : {"sqnr_o", "sqnr_w", "sqnr_x", "mse_o", "mse_w", "mse_x", "kurt_x", "kurt_w", "std_x", "std_w",
                         "max_x", "max_w", "min_x", "min_w", "mean_x", "mean_w"})
    ids << QLatin1String(id);
  return ids;
}

std::string kind_of(const LinearPlace& place) {
  return place.expert < 0 ? place.linear : "expert " + std::to_string(place.expert) + " " + place.linear;
}

}  // namespace

WeightLayersPage::WeightLayersPage(HeatmapCanvas* map, QWidget* parent)
    : QWidget(parent), map_(map), model_(new PlainTableModel(this)) {
  auto* column = new QVBoxLayout(this);
  column->setContentsMargins(6, 2, 6, 4);
  column->setSpacing(4);
  auto* row = new QHBoxLayout;
  const auto combo = [&](const char* name, const QString& label, const QString& tip) {
    auto* text = new QLabel(label, this);
    auto* box = new QComboBox(this);
    box->setObjectName(QLatin1String(name));
    box->setAccessibleName(tip);
    box->setToolTip(tip);
    box->setSizeAdjustPolicy(QComboBox::AdjustToContents);
    text->setBuddy(box);
    row->addWidget(text);
    row->addWidget(box);
    return box;
  };
  variants_ = combo("layers_variant", tr("Plan"), tr("The plan with quantized weights that is measured"));
  error_ =
      combo("layers_error", tr("Error"),
            tr("Local: what a linear's own rounding does to its output, given the input that reaches it. "
               "Accumulated: how far everything in front of a linear has moved its input from the untouched model"));
  error_->addItems({tr("Local"), tr("Accumulated")});
  metric_ = combo("layers_metric", tr("Show"), tr("What the curves and the heatmap show"));
  auto* text = new QLabel(tr("Windows"), this);
  windows_ = new QSpinBox(this);
  windows_->setObjectName(QStringLiteral("layers_windows"));
  windows_->setAccessibleName(tr("Windows of the text"));
  windows_->setToolTip(
      tr("How many windows of the text are run; the published tables use 10 (local) and 1 (accumulated)"));
  windows_->setRange(1, 1000);
  windows_->setValue(4);
  text->setBuddy(windows_);
  row->addWidget(text);
  row->addWidget(windows_);
  const auto button = [&](const char* name, const QString& label, const QString& tip) {
    auto* tool = new QToolButton(this);
    tool->setObjectName(QLatin1String(name));
    tool->setText(label);
    tool->setAccessibleName(label);
    tool->setToolTip(tip);
    row->addWidget(tool);
    return tool;
  };
  measure_ = button("layers_measure", tr("Measure"), tr("Runs the text through the quantized model"));
  cancel_ = button("layers_cancel", tr("Cancel"), tr("Stops within a second"));
  row->addStretch(1);
  column->addLayout(row);
  note_ = new QLabel(this);
  note_->setObjectName(QStringLiteral("layers_note"));
  note_->setWordWrap(true);
  column->addWidget(note_);
  auto* split = new QSplitter(Qt::Vertical, this);
  split->setChildrenCollapsible(false);
  plot_ = new PlotView(split);
  plot_->setObjectName(QStringLiteral("layers_plot"));
  plot_->setAccessibleName(tr("Error over depth"));
  plot_->setToolTip(tr("One curve a kind of linear, over the layers"));
  split->addWidget(plot_);
  split->addWidget(map_);
  split->setStretchFactor(0, 3);
  split->setStretchFactor(1, 2);
  split->setSizes({340, 240});
  column->addWidget(split, 1);
  map_->panel().cellTexts = true;
  map_->panel().x.title = tr("layer");
  map_->panel().y.title = tr("linear");
  map_->describe = [this](Cell cell) { return describe(cell.row, cell.col); };
  connect(variants_, &QComboBox::activated, this, [this] {
    refresh();
    Q_EMIT variantChosen();
    Q_EMIT changed();
  });
  connect(error_, &QComboBox::activated, this, [this] {
    fillMetrics();
    refresh();
    Q_EMIT changed();
  });
  connect(metric_, &QComboBox::activated, this, [this] {
    refresh();
    Q_EMIT changed();
  });
  connect(measure_, &QToolButton::clicked, this,
          [this] { Q_EMIT measureRequested(variant(), error() == Error::Accumulated, windows()); });
  connect(cancel_, &QToolButton::clicked, this, &WeightLayersPage::cancelRequested);
  connect(plot_, &PlotView::pointHovered, this, [this](int, int, const QString& at) { Q_EMIT readout(at); });
  fillMetrics();
  refresh();
}

void WeightLayersPage::fillMetrics() {
  const QString before = metric();
  const QSignalBlocker quiet(metric_);
  metric_->clear();
  for (const QString& id : metrics_of(error())) metric_->addItem(metric_text(id), id);
  metric_->setCurrentIndex(std::max(0, metric_->findData(before)));
}

void WeightLayersPage::setVariants(const QList<std::pair<QString, QString>>& variants) {
  const QString before = variant().isEmpty() ? wanted_ : variant();
  {
    const QSignalBlocker quiet(variants_);
    variants_->clear();
    for (const auto& [id, label] : variants) variants_->addItem(label, id);
    variants_->setCurrentIndex(std::max(variants.isEmpty() ? -1 : 0, variants_->findData(before)));
  }
  refresh();
}

QString WeightLayersPage::variant() const { return variants_->currentData().toString(); }
void WeightLayersPage::setVariant(const QString& id) {
  wanted_ = id;
  const QSignalBlocker quiet(variants_);
  if (const int index = variants_->findData(id); index >= 0) variants_->setCurrentIndex(index);
}
WeightLayersPage::Error WeightLayersPage::error() const {
  return error_->currentIndex() == 1 ? Error::Accumulated : Error::Local;
}
void WeightLayersPage::setError(Error error) {
  error_->setCurrentIndex(static_cast<int>(error));
  fillMetrics();
  refresh();
}
QString WeightLayersPage::metric() const { return metric_->currentData().toString(); }
void WeightLayersPage::setMetric(const QString& id) {
  if (const int index = metric_->findData(id); index >= 0) metric_->setCurrentIndex(index);
  refresh();
}
int WeightLayersPage::windows() const { return windows_->value(); }
QAbstractTableModel* WeightLayersPage::table() { return model_; }
bool WeightLayersPage::isEmpty() const { return rows().empty(); }

void WeightLayersPage::setStatistics(const QString& variantId, std::optional<LayerStatistics> statistics) {
  if (statistics)
    statistics_[variantId] = std::move(*statistics);
  else
    statistics_.erase(variantId);
  refresh();
}

void WeightLayersPage::setDistance(const QString& variantId, std::optional<LayerDistance> distance) {
  if (distance)
    distances_[variantId] = std::move(*distance);
  else
    distances_.erase(variantId);
  refresh();
}

void WeightLayersPage::clear() {
  statistics_.clear();
  distances_.clear();
  failure_.clear();
  refresh();
}

void WeightLayersPage::setBusy(const QString& variantId, bool busy, const QString& failure) {
  busy_ = busy;
  failure_ = variantId == variant() ? failure : QString();
  refresh();
}

void WeightLayersPage::setLayer(int layer) {
  map_->panel().selectedCol = layer;
  map_->update();
}

std::vector<WeightLayersPage::Row> WeightLayersPage::rows() const {
  std::vector<Row> rows;
  if (error() == Error::Local) {
    const auto found = statistics_.find(variant());
    if (found == statistics_.end()) return rows;
    for (const LinearStatistics& linear : found->second.linears) {
      const auto exact = linear.exact_windows.find(metric().toStdString());
      rows.push_back(
          {linear.place, linear.values, exact == linear.exact_windows.end() ? 0 : exact->second, linear.windows});
    }
    return rows;
  }
  const auto found = distances_.find(variant());
  if (found == distances_.end()) return rows;
  for (const LinearDistance& linear : found->second.linears)
    rows.push_back(
        {linear.place, {{"sqnr_db", linear.sqnr_db}, {"mse", linear.mse}}, linear.exact_windows, linear.windows});
  return rows;
}

void WeightLayersPage::refresh() {
  measure_->setVisible(!busy_);
  cancel_->setVisible(busy_);
  measure_->setEnabled(variants_->count() > 0);
  const std::vector<Row> shown = rows();
  const QString id = metric(), name = metric_text(id);
  const bool local = error() == Error::Local;
  QString note = local ? tr("Local error: what each linear's own rounding does, given the input that reaches it in the "
                            "quantized model.")
                       : tr("Accumulated error: how far the input of each linear is from that in the untouched model.");
  if (busy_)
    note += tr(" Measuring: the text runs through the model.");
  else if (!failure_.isEmpty())
    note = tr("Not measured: %1").arg(failure_);
  else if (shown.empty())
    note += tr(" Press Measure to run a text through the quantized model.");
  else if (!local) {
    for (const std::string& text : distances_.at(variant()).notes)
      note += QLatin1Char(' ') + QString::fromStdString(text);
  }
  note_->setText(note);

  PlotSpec spec;
  spec.title = tr("%1 %2 over depth, %3").arg(local ? tr("Local") : tr("Accumulated"), name, variants_->currentText());
  spec.x = {tr("layer"), false, -0.4, std::numeric_limits<double>::quiet_NaN(), true};
  spec.y = {name, id.startsWith(QLatin1String("mse"))};
  spec.emptyText = variants_->count() == 0 ? tr("There is no plan with quantized weights yet.")
                                           : tr("Press Measure to run a text through the quantized model.");
  kinds_.clear();
  std::int64_t layers = 0;
  for (const Row& row : shown) {
    layers = std::max(layers, row.place.layer + 1);
    if (const std::string kind = kind_of(row.place); std::find(kinds_.begin(), kinds_.end(), kind) == kinds_.end())
      kinds_.push_back(kind);
  }
  // What lies behind the last block has a column of its own.
  const bool behind = std::any_of(shown.begin(), shown.end(), [](const Row& row) { return row.place.layer < 0; });
  const std::int64_t columns = layers + behind;
  const auto column_of = [&](const Row& row) { return row.place.layer < 0 ? layers : row.place.layer; };
  std::vector<float> cells(kinds_.size() * static_cast<std::size_t>(columns), std::numeric_limits<float>::quiet_NaN());
  for (std::size_t k = 0; k < kinds_.size(); ++k) {
    PlotSeries series;
    series.name = QString::fromStdString(kinds_[k]);
    series.color = static_cast<int>(k) % kColors;
    series.dashed = k >= kColors;
    for (const Row& row : shown) {
      const auto value = row.values.find(id.toStdString());
      if (kind_of(row.place) != kinds_[k] || value == row.values.end()) continue;
      cells[k * static_cast<std::size_t>(columns) + static_cast<std::size_t>(column_of(row))] =
          static_cast<float>(value->second);
      if (!std::isfinite(value->second)) continue;
      PlotPoint point{static_cast<double>(column_of(row)), value->second};
      point.marker = PlotPoint::Marker::Filled;
      point.note = QString::fromStdString(row.place.name);
      if (row.exact > 0) point.note += tr(", %1 of %2 windows exact").arg(row.exact).arg(row.windows);
      series.points.append(point);
    }
    spec.series.append(series);
  }
  if (columns > 0) spec.x.high = static_cast<double>(columns) - 0.6;
  plot_->setSpec(std::move(spec));

  HeatmapPanel& panel = map_->panel();
  panel.title = tr("%1 %2, %3").arg(local ? tr("Local") : tr("Accumulated"), name, variants_->currentText());
  panel.valueTitle = name;
  panel.y.label = [kinds = kinds_](std::int64_t k) {
    return k >= 0 && k < static_cast<std::int64_t>(kinds.size())
               ? QString::fromStdString(kinds[static_cast<std::size_t>(k)])
               : QString();
  };
  panel.x.label = [layers](std::int64_t c) { return c < layers ? QString::number(c) : QStringLiteral("head"); };
  panel.placeholder = plot_->spec().emptyText;
  Q_EMIT cellsChanged(cells.empty()
                          ? TensorView{}
                          : TensorView::own(std::move(cells), {static_cast<std::int64_t>(kinds_.size()), columns}));

  QStringList headers = {tr("layer"), tr("linear"), tr("error")};
  for (const QString& each : metrics_of(error())) headers << each;
  headers << tr("exact windows") << tr("windows");
  QVector<PlainTableModel::Row> lines;
  for (const Row& row : shown) {
    PlainTableModel::Row line = {
        row.place.layer < 0 ? QVariant(QStringLiteral("head")) : QVariant(static_cast<qint64>(row.place.layer)),
        QString::fromStdString(kind_of(row.place)), local ? tr("local") : tr("accumulated")};
    for (const QString& each : metrics_of(error())) {
      const auto value = row.values.find(each.toStdString());
      line << (value == row.values.end() ? QVariant() : QVariant(value->second));
    }
    line << static_cast<qint64>(row.exact) << static_cast<qint64>(row.windows);
    lines.append(std::move(line));
  }
  model_->setTable(headers, std::move(lines));
}

QString WeightLayersPage::describe(std::int64_t row, std::int64_t column) const {
  if (row < 0 || row >= static_cast<std::int64_t>(kinds_.size())) return {};
  for (const Row& each : rows()) {
    if (kind_of(each.place) != kinds_[static_cast<std::size_t>(row)]) continue;
    if (each.place.layer != column && !(each.place.layer < 0 && map_->panel().cols() == column + 1)) continue;
    const auto value = each.values.find(metric().toStdString());
    if (value == each.values.end()) return {};
    return tr("%1 | %2 %3 %4 | %5 of %6 windows exact")
        .arg(QString::fromStdString(each.place.name), error() == Error::Local ? tr("local") : tr("accumulated"),
             metric_text(metric()), number_text(value->second, 5))
        .arg(each.exact)
        .arg(each.windows);
  }
  return {};
}

QString WeightLayersPage::summary() const {
  return rows().empty() ? note_->text() : plot_->spec().title + QStringLiteral(". ") + map_->panel().summary();
}

void WeightLayersPage::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  painter.fillRect(target, style.background);
  const double half = target.height() * 0.56;
  plot_->paint(painter, QRectF(target.left(), target.top(), target.width(), half), style);
  map_->panel().paint(painter, QRectF(target.left(), target.top() + half, target.width(), target.height() - half),
                      style);
  painter.restore();
}

}  // namespace qs
