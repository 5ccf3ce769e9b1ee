#include "widgets/views/weights_view.h"

#include <QButtonGroup>
#include <QComboBox>
#include <QJsonObject>
#include <QLabel>
#include <QPainter>
#include <QSignalBlocker>
#include <QSplitter>
#include <QStackedWidget>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <utility>

#include "widgets/paint/axes.h"
#include "widgets/plot_view.h"
#include "widgets/views/linear_names.h"

namespace qs {
namespace {

const char* const kPages[] = {"errors", "layers", "run"};
const char* const kScopes[] = {"matrix", "row", "group"};

QString metric_title(analysis::WeightMetric metric) {
  switch (metric) {
    case analysis::WeightMetric::RelativeError:
      return WeightsView::tr("relative error ‖W−W'‖/‖W‖");
    case analysis::WeightMetric::SqnrDb:
      return WeightsView::tr("SQNR [dB]");
    case analysis::WeightMetric::LossRatio:
      return WeightsView::tr("proxy loss / RTN's");
    case analysis::WeightMetric::MaxAbsError:
      return WeightsView::tr("largest |error|");
    case analysis::WeightMetric::EffectiveBits:
      return WeightsView::tr("effective bits [bit]");
    case analysis::WeightMetric::OutputError:
      return WeightsView::tr("output error, inputs uncorrelated");
  }
  return {};
}

QString metric_unit(analysis::WeightMetric metric) {
  switch (metric) {
    case analysis::WeightMetric::SqnrDb:
      return WeightsView::tr("dB");
    case analysis::WeightMetric::EffectiveBits:
      return WeightsView::tr("bit");
    case analysis::WeightMetric::MaxAbsError:
      return WeightsView::tr("weight units");
    default:
      return WeightsView::tr("ratio");
  }
}

PyramidPtr pyramid_of(const TensorView& plane) {
  return plane.empty() ? nullptr : std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(plane));
}

int index_of(const QComboBox& box, const QString& data) { return box.findData(data); }

}  // namespace

WeightsView::WeightsView(SelectionHub& hub, QWidget* parent)
    : HeatmapView(QStringLiteral("weights"), tr("Weight quantization"), hub, parent) {
  buildControls();
  pages_ = new QStackedWidget(body());
  pages_->addWidget(buildErrors());
  layers_map_ = addHeatmap(QStringLiteral("layers"), tr("Layer × linear"));
  layers_page_ = new WeightLayersPage(layers_map_, pages_);
  pages_->addWidget(layers_page_);
  run_page_ = new WeightRunPage(pages_);
  pages_->addWidget(run_page_);
  auto* layout = new QVBoxLayout(body());
  layout->setContentsMargins(0, 0, 0, 0);
  layout->addWidget(pages_);
  connect(layers_page_, &WeightLayersPage::readout, this, &ViewBase::readoutChanged);
  connect(layers_page_, &WeightLayersPage::changed, this, &ViewBase::settingsChanged);
  connect(layers_page_, &WeightLayersPage::cellsChanged, this, [this](const TensorView& cells) {
    const QString waiting = layers_map_->panel().placeholder;
    const PyramidPtr plane = pyramid_of(cells);
    setPlanes(layers_map_, plane, plane);
    if (!plane) layers_map_->panel().placeholder = waiting;
  });
  connect(run_page_, &WeightRunPage::readout, this, &ViewBase::readoutChanged);
  connect(run_page_, &WeightRunPage::layerActivated, this, [this](int layer, const QString& kind) {
    setKind(kind);
    choose([&](Selection& s) { s.layer = layer; });
  });
  setPage(Errors);
}

void WeightsView::buildControls() {
  auto* row = controlsLayout();
  page_buttons_ = new QButtonGroup(this);
  const struct {
    QString text, name, tip;
  } pages[] = {
      {tr("Errors"), QStringLiteral("page_errors"),
       tr("Every linear against the original, and the chosen one cell by cell")},
      {tr("Layers"), QStringLiteral("page_layers"), tr("Local and accumulated errors over depth, measured on a text")},
      {tr("Run"), QStringLiteral("page_run"), tr("Progress of methods that quantize layer by layer")}};
  auto* group = new QHBoxLayout;
  group->setSpacing(0);
  for (int i = 0; i < 3; ++i) {
    auto* button = new QToolButton(this);
    button->setObjectName(pages[i].name);
    button->setText(pages[i].text);
    button->setAccessibleName(tr("Page %1").arg(pages[i].text));
    button->setToolTip(pages[i].tip);
    button->setCheckable(true);
    page_buttons_->addButton(button, i);
    group->addWidget(button);
  }
  row->insertLayout(0, group);
  connect(page_buttons_, &QButtonGroup::idClicked, this, [this](int id) { setPage(static_cast<Page>(id)); });
  const auto add = [&](QWidget* widget, const QString& name, const QString& accessible, const QString& tip) {
    widget->setObjectName(name);
    widget->setAccessibleName(accessible);
    widget->setToolTip(tip);
    row->insertWidget(row->count() - 1, widget);
  };
  metric_box_ = new QComboBox(this);
  for (int i = 0; i < analysis::kWeightMetrics; ++i)
    metric_box_->addItem(metric_title(static_cast<analysis::WeightMetric>(i)));
  add(metric_box_, QStringLiteral("metric"), tr("Metric of the overview"),
      tr("What colours the overview. Layer output error: relative error of x Wᵀ from the capture's second moments of "
         "each input channel, channels taken as uncorrelated. The strip below always shows it beside the weight "
         "error"));
  metric_box_->setMinimumContentsLength(14);
  metric_box_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  signed_button_ = new QToolButton(this);
  signed_button_->setText(QStringLiteral("±"));
  signed_button_->setCheckable(true);
  add(signed_button_, QStringLiteral("signed"), tr("Signed error"),
      tr("Shows the signed error W' − W instead of its magnitude"));
  connect(metric_box_, &QComboBox::activated, this,
          [this](int i) { setMetric(static_cast<analysis::WeightMetric>(i)); });
  connect(signed_button_, &QToolButton::toggled, this, &WeightsView::setSigned);
}

QWidget* WeightsView::buildErrors() {
  auto* columns = new QSplitter(Qt::Horizontal, pages_);
  columns->setChildrenCollapsible(false);
  auto* left = new QWidget(columns);
  auto* stack = new QVBoxLayout(left);
  stack->setContentsMargins(0, 0, 0, 0);
  stack->setSpacing(0);
  for (int i = 0; i < kMostVariants; ++i) {
    auto* canvas = addHeatmap(QStringLiteral("overview%1").arg(i), tr("Overview"));
    canvas->panel().cellTexts = true;
    canvas->panel().x.label = [](std::int64_t layer) { return QStringLiteral("L%1").arg(layer); };
    canvas->setMinimumHeight(90);
    canvas->setVisible(false);
    canvas->describe = [this, i](Cell cell) { return describeOverview(i, cell); };
    setOwnScale(canvas, {});
    overview_.push_back(canvas);
    stack->addWidget(canvas, 3);
  }
  strip_ = new MetricStripCanvas(QStringLiteral("metrics"), left);
  strip_->panel().title = tr("Weights beside function");
  strip_->panel().reconstructionTitle = tr("weights: relative error");
  strip_->panel().functionalTitle = tr("function: output error, inputs uncorrelated");
  strip_->panel().placeholder = tr("No plan with quantized weights was compared yet.");
  strip_->setAccessibleName(strip_->panel().title);
  strip_->setToolTip(
      tr("Mean over all linears, weighted by their size. Function: relative error of x Wᵀ from the second moments of "
         "each input channel in the capture, as if channels were uncorrelated. Methods that use correlations (GPTQ, "
         "SpQR) are better than they look here: compare proxy loss / RTN's, or the output errors of the page Layers. "
         "Disagree (red): the two rank the variants differently"));
  strip_->setMinimumHeight(110);
  addCanvas(strip_);
  stack->addWidget(strip_, 2);
  columns->addWidget(left);
  columns->addWidget(buildDetail());
  columns->setStretchFactor(0, 2);
  columns->setStretchFactor(1, 3);
  columns->setSizes({430, 700});
  return columns;
}

QList<PanelCanvas*> WeightsView::errorCanvases() const {
  QList<PanelCanvas*> canvases;
  for (HeatmapCanvas* canvas : overview_) canvases << canvas;
  canvases << strip_ << detail_ << parts_;
  return canvases;
}

bool WeightsView::isMaximized() const { return strip_->isHidden() || detail_->isHidden() || parts_->isHidden(); }

void WeightsView::setPage(Page page) {
  const bool changed = page != page_;
  page_ = page;
  pages_->setCurrentIndex(page);
  layers_map_->setVisible(page == Layers);
  page_buttons_->button(page)->setChecked(true);
  for (QAbstractButton* button : page_buttons_->buttons()) {
    QFont font = button->font();
    font.setBold(button->isChecked());
    font.setUnderline(font.bold());
    button->setFont(font);
  }
  for (QWidget* widget : std::initializer_list<QWidget*>{metric_box_, signed_button_})
    widget->setEnabled(page == Errors);
  if (!changed) return;
  refillPageTable();
  Q_EMIT pageChanged();
  Q_EMIT settingsChanged();
}

void WeightsView::askRetryLayer() {
  setPage(Run);
  const int chosen = run_page_->chosenLayer();
  Q_EMIT run_page_->retryLayerRequested(run_page_->variant(), chosen >= 0 ? chosen : selection().layer);
}

void WeightsView::setMetric(analysis::WeightMetric metric) {
  metric_ = metric;
  metric_box_->setCurrentIndex(static_cast<int>(metric));
  refreshOverview();
  Q_EMIT settingsChanged();
}

void WeightsView::setSigned(bool is_signed) {
  if (signed_ == is_signed) return;
  signed_ = is_signed;
  signed_button_->setChecked(is_signed);
  refreshDetail();
  Q_EMIT settingsChanged();
}

void WeightsView::setKind(const QString& kind) {
  if (kind == kind_) return;
  kind_ = kind;
  selectionApplied();
  Q_EMIT linearChosen();
  Q_EMIT settingsChanged();
}

void WeightsView::setVariants(std::vector<WeightVariant> variants) {
  variants_ = std::move(variants);
  if (variants_.size() > static_cast<std::size_t>(kMostVariants)) variants_.resize(kMostVariants);
  refreshOverview();
  refreshStrip();
}

void WeightsView::refreshOverview() {
  std::vector<PyramidPtr> planes;
  analysis::ColorScale shared;
  bool first = true;
  for (const WeightVariant& variant : variants_) {
    planes.push_back(variant.overview ? pyramid_of(variant.overview->matrix(metric_)) : nullptr);
    if (!planes.back()) continue;
    const analysis::PlaneSummary plane = analysis::summarize(*planes.back());
    if (!(plane.high > plane.low) && plane.high == 0.0 && plane.low == 0.0) continue;  // nothing known of any cell
    const auto scale = analysis::fit_scale(plane, scaleKind(), analysis::RangeMode::Full, false);
    shared = first ? scale : analysis::united(shared, scale);
    first = false;
  }
  const QString mode = modeText();
  const bool joined = mode.size() > 1;  // each variant against the first
  for (std::size_t i = 0; i < overview_.size(); ++i) {
    HeatmapCanvas* canvas = overview_[i];
    const bool used = i < variants_.size();
    if (!isMaximized()) canvas->setVisible(used);
    if (!used) {
      setPlanes(canvas, nullptr, nullptr);
      continue;
    }
    const WeightVariant& variant = variants_[i];
    HeatmapPanel& panel = canvas->panel();
    setOwnScale(canvas, shared);
    panel.title = joined && i > 0 ? tr("%1 against %2").arg(variant.label, variants_.front().label) : variant.label;
    canvas->setAccessibleName(tr("%1, %2 by layer and linear").arg(variant.label, metric_title(metric_)));
    panel.valueTitle = metric_unit(metric_);
    panel.note = i == 0 ? metric_title(metric_) : QString();
    if (variant.overview) {
      panel.y.label = [kinds = variant.overview->kinds](std::int64_t k) {
        return k >= 0 && k < static_cast<std::int64_t>(kinds.size())
                   ? short_linear_name(kinds[static_cast<std::size_t>(k)])
                   : QString();
      };
    }
    setPlanes(canvas, planes[i], joined ? planes.front() : planes[i]);
    if (!planes[i]) panel.placeholder = variant.why;
  }
  selectionApplied();
}

void WeightsView::refreshStrip() {
  std::vector<analysis::MetricPair> pairs;
  for (const WeightVariant& variant : variants_) {
    if (!variant.overview) continue;
    pairs.push_back({variant.label.toStdString(),
                     analysis::mean_of(*variant.overview, analysis::WeightMetric::RelativeError),
                     analysis::mean_of(*variant.overview, analysis::WeightMetric::OutputError)});
  }
  strip_->panel().setVariants(std::move(pairs));
  strip_->update();
  tableOutdated();
}

void WeightsView::modeApplied() {
  if (!run_page_) return;
  const QString mode = modeText();
  const bool single = mode.size() == 1;
  const WeightSide& side = shownSide();
  HeatmapPanel& panel = detail_->panel();
  panel.title = tr("%1, %2").arg(linearTitle(), single ? side.label : mode);
  if (panel.isEmpty()) {
    const WeightSide& wanted = mode == QLatin1String("B") ? b_ : a_;
    panel.placeholder = wanted.why.isEmpty() ? tr("Choose a linear in the overview at the left.") : wanted.why;
  }
  const bool profiles = single && side.shown() && !panel.isEmpty();
  panel.topProfile = profiles ? side.byInput : std::vector<float>{};
  panel.rightProfile = profiles ? side.byOutput : std::vector<float>{};
  panel.note.clear();
  if (single && side.shown()) {
    const analysis::WeightError& e = side.report.error;
    QStringList facts{tr("relative error %1").arg(number_text(e.relative_error, 3)),
                      tr("SQNR %1 dB").arg(number_text(e.sqnr_db, 3))};
    if (std::isfinite(e.output_error)) facts << tr("output error %1").arg(number_text(e.output_error, 3));
    if (std::isfinite(side.report.effective_bits))
      facts << tr("%1 bit").arg(number_text(side.report.effective_bits, 3));
    panel.note = facts.join(QStringLiteral(" · "));
  }
  panel.x.borders.clear();
  const LinearGrid& grid = side.grid;
  const bool ordered = std::is_sorted(grid.group_of.begin(), grid.group_of.end());
  if (grid.groups > 1 && grid.groups <= 64 && ordered) {
    for (std::size_t j = 1; j < grid.group_of.size(); ++j)
      if (grid.group_of[j] != grid.group_of[j - 1]) panel.x.borders.push_back(static_cast<double>(j));
  }
  refreshOverview();
  refreshHistogram();
  fillPartChoices();
  refreshParts();
}

void WeightsView::selectionApplied() {
  if (!run_page_) return;
  const int layer = selection().layer;
  for (std::size_t i = 0; i < overview_.size(); ++i) {
    HeatmapPanel& panel = overview_[i]->panel();
    panel.selectedCol = layer;
    panel.selectedRow = -1;
    if (i < variants_.size() && variants_[i].overview) {
      const auto& kinds = variants_[i].overview->kinds;
      const auto found = std::find(kinds.begin(), kinds.end(), kind_.toStdString());
      if (found != kinds.end()) panel.selectedRow = found - kinds.begin();
    }
    overview_[i]->update();
  }
  layers_page_->setLayer(layer);
  detail_->panel().selectedRow = output_;
  detail_->panel().selectedCol = input_;
  detail_->update();
}

void WeightsView::cellActivated(HeatmapCanvas* canvas, qint64 row, qint64 col) {
  if (canvas == detail_) return chooseCell(row, col);
  if (canvas == parts_) {
    const bool by_group = parts_->panel().cols() == shownSide().grid.groups;
    if (!by_group) return chooseCell(row, col);
    const auto& group_of = shownSide().grid.group_of;
    const auto first = std::find(group_of.begin(), group_of.end(), static_cast<std::int32_t>(col));
    return chooseCell(row, first == group_of.end() ? 0 : first - group_of.begin());
  }
  if (canvas == layers_map_) return choose([&](Selection& s) { s.layer = static_cast<int>(col); });
  const auto found = std::find(overview_.begin(), overview_.end(), canvas);
  if (found == overview_.end()) return;
  const auto index = static_cast<std::size_t>(found - overview_.begin());
  if (index >= variants_.size() || !variants_[index].overview) return;
  const auto& kinds = variants_[index].overview->kinds;
  if (row >= 0 && row < static_cast<qint64>(kinds.size()))
    setKind(QString::fromStdString(kinds[static_cast<std::size_t>(row)]));
  choose([&](Selection& s) { s.layer = static_cast<int>(col); });
}

QString WeightsView::describeOverview(int variant, Cell cell) const {
  const auto v = static_cast<std::size_t>(variant);
  if (v >= variants_.size() || !variants_[v].overview) return {};
  const analysis::WeightOverview& overview = *variants_[v].overview;
  if (cell.row >= static_cast<std::int64_t>(overview.kinds.size())) return {};
  const analysis::LinearReport* r = overview.find(cell.col, overview.kinds[static_cast<std::size_t>(cell.row)]);
  if (!r) return tr("%1 L%2: there is no such linear").arg(variants_[v].label).arg(cell.col);
  QString text = tr("%1 L%2 %3 [%4 × %5] | relative error %6 | SQNR %7 dB")
                     .arg(variants_[v].label)
                     .arg(cell.col)
                     .arg(short_linear_name(r->kind))
                     .arg(r->out_features)
                     .arg(r->in_features)
                     .arg(number_text(r->error.relative_error), number_text(r->error.sqnr_db));
  text += std::isfinite(r->error.output_error)
              ? tr(" | layer output error %1").arg(number_text(r->error.output_error))
              : tr(" | layer output error not known: the capture has no second moments");
  if (std::isfinite(r->loss_ratio)) text += tr(" | proxy loss %1 × RTN").arg(number_text(r->loss_ratio));
  text += tr(" | largest |error| %1 | %2 bit").arg(number_text(r->error.max_abs_error), number_text(r->effective_bits));
  return text;
}

FigureTable::Content WeightsView::tableOf(PanelCanvas* canvas) {
  FigureTable::Content content;
  if (canvas != strip_) return content;
  content.rows = static_cast<int>(strip_->panel().variants().size());
  content.columns = 4;
  content.header = [](int c) {
    return QStringList{tr("variant"), tr("weights: relative error"), tr("function: output error, inputs uncorrelated"),
                       tr("disagree")}
        .value(c);
  };
  content.cell = [variants = strip_->panel().variants(), flags = strip_->panel().disagree()](int r, int c) -> QVariant {
    const auto i = static_cast<std::size_t>(r);
    if (c == 0) return QString::fromStdString(variants[i].label);
    if (c == 3) return flags[i] ? 1 : 0;
    return c == 1 ? variants[i].reconstruction : variants[i].functional;
  };
  return content;
}

QAbstractTableModel* WeightsView::dataTable() {
  if (!std::exchange(table_asked_, true)) {
    for (const QAbstractTableModel* model : {HeatmapView::dataTable(), layers_page_->table(), run_page_->table()})
      connect(model, &QAbstractItemModel::modelReset, this, &WeightsView::refillPageTable);
  }
  refillPageTable();
  return &page_table_;
}

void WeightsView::refillPageTable() {
  if (!table_asked_) return;
  const QAbstractTableModel* model = page_ == Run      ? run_page_->table()
                                     : page_ == Layers ? layers_page_->table()
                                                       : HeatmapView::dataTable();
  FigureTable::Content content;
  content.rows = model->rowCount();
  content.columns = model->columnCount();
  content.header = [model](int c) { return model->headerData(c, Qt::Horizontal).toString(); };
  content.cell = [model](int r, int c) { return model->data(model->index(r, c), Qt::EditRole); };
  page_table_.setContent(std::move(content));
}

QString WeightsView::accessibleSummary() const {
  if (page_ == Run) return run_page_->summary();
  if (page_ == Layers) return layers_page_->summary();
  QStringList parts;
  for (const PanelCanvas* canvas : errorCanvases())
    if (!canvas->panel().isEmpty()) parts << canvas->panel().summary();
  return parts.isEmpty() ? tr("Nothing to show yet") : parts.join(QStringLiteral(". "));
}

void WeightsView::paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  if (page_ == Run) return run_page_->paint(painter, target, style);
  if (page_ == Layers) return layers_page_->paint(painter, target, style);
  HeatmapView::paintFigure(painter, target, style);
  const QRectF whole = body()->rect();
  if (whole.isEmpty() || target.width() < 420.0) return;
  const QRectF at(histogram_->mapTo(body(), QPoint(0, 0)), QSizeF(histogram_->size()));
  const double sx = target.width() / whole.width(), sy = target.height() / whole.height();
  histogram_->paint(
      painter, QRectF(target.left() + at.left() * sx, target.top() + at.top() * sy, at.width() * sx, at.height() * sy),
      style);
}

void WeightsView::saveOwn(QJsonObject& settings) const {
  settings[QStringLiteral("page")] = QLatin1String(kPages[page_]);
  settings[QStringLiteral("metric")] = QLatin1String(analysis::weight_metric_id(metric_));
  settings[QStringLiteral("signed")] = signed_;
  settings[QStringLiteral("linear")] = kind_;
  settings[QStringLiteral("scope")] = QLatin1String(kScopes[std::clamp(scope_box_->currentIndex(), 0, 2)]);
  settings[QStringLiteral("part")] = wanted_part_;
  settings[QStringLiteral("output")] = output_;
  settings[QStringLiteral("input")] = input_;
  settings[QStringLiteral("run_of")] = run_page_->variant();
  settings[QStringLiteral("layers_of")] = layers_page_->variant();
  settings[QStringLiteral("layers_metric")] = layers_page_->metric();
  settings[QStringLiteral("accumulated")] = layers_page_->error() == WeightLayersPage::Error::Accumulated;
}

void WeightsView::restoreOwn(const QJsonObject& settings) {
  const auto text = [&](const char* key) { return settings[QLatin1String(key)].toString(); };
  for (int i = 0; i < analysis::kWeightMetrics; ++i)
    if (text("metric") == QLatin1String(analysis::weight_metric_id(static_cast<analysis::WeightMetric>(i))))
      metric_ = static_cast<analysis::WeightMetric>(i);
  metric_box_->setCurrentIndex(static_cast<int>(metric_));
  signed_ = settings[QStringLiteral("signed")].toBool();
  {
    const QSignalBlocker quiet(signed_button_);
    signed_button_->setChecked(signed_);
  }
  if (!text("linear").isEmpty()) kind_ = text("linear");
  scope_box_->setCurrentIndex(std::max(0, index_of(*scope_box_, text("scope"))));
  wanted_part_ = text("part");
  output_ = std::max<qint64>(0, settings[QStringLiteral("output")].toInteger());
  input_ = std::max<qint64>(0, settings[QStringLiteral("input")].toInteger());
  run_page_->setVariant(text("run_of"));
  layers_page_->setVariant(text("layers_of"));
  layers_page_->setError(settings[QStringLiteral("accumulated")].toBool() ? WeightLayersPage::Error::Accumulated
                                                                          : WeightLayersPage::Error::Local);
  layers_page_->setMetric(text("layers_metric"));
  Page page = Errors;
  for (const Page each : {Layers, Run})
    if (text("page") == QLatin1String(kPages[each])) page = each;
  setPage(page);
  refreshDetail();
}

}  // namespace qs
