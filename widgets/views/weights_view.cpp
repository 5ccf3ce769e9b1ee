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

namespace qs {
namespace {

constexpr std::size_t kMostLevels = 512;  // beyond: a row of its own values, no grid worth drawing
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
      return WeightsView::tr("layer output error");
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

QString short_kind(const std::string& kind) {
  const QString text = QString::fromStdString(kind);
  return text.startsWith(QLatin1String("self_attn.")) || text.startsWith(QLatin1String("mlp."))
             ? text.section(QLatin1Char('.'), 1)
             : text;
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
    canvas->panel().x.title = tr("layer");
    canvas->panel().y.title = tr("linear");
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
  strip_->panel().functionalTitle = tr("function: layer output error");
  strip_->panel().placeholder = tr("No plan with quantized weights was compared yet.");
  strip_->setAccessibleName(strip_->panel().title);
  strip_->setToolTip(
      tr("Mean over all linears, weighted by their size. Function: relative error of x Wᵀ from the second moments of "
         "each input channel in the capture. Disagree (red): the two rank the variants differently; what the layer "
         "puts out is what counts"));
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

QWidget* WeightsView::buildDetail() {
  auto* right = new QSplitter(Qt::Vertical, pages_);
  right->setChildrenCollapsible(false);
  detail_ = addHeatmap(QStringLiteral("detail"), tr("Output × input channel"));
  detail_->panel().x.title = tr("input channel");
  detail_->panel().y.title = tr("output channel");
  detail_->panel().topTitle = tr("RMS over outputs");
  detail_->panel().rightTitle = tr("RMS over inputs");
  detail_->describe = [this](Cell cell) { return describeDetail(cell); };
  right->addWidget(detail_);
  auto* bottom = new QSplitter(Qt::Horizontal, right);
  bottom->setChildrenCollapsible(false);
  const auto framed = [&](QWidget* parent, QComboBox*& box, const QString& name, const QString& label,
                          const QString& tip, QWidget* content) {
    auto* frame = new QWidget(parent);
    auto* column = new QVBoxLayout(frame);
    column->setContentsMargins(0, 0, 0, 0);
    column->setSpacing(0);
    auto* row = new QHBoxLayout;
    row->setContentsMargins(6, 2, 6, 0);
    auto* text = new QLabel(label, frame);
    box = new QComboBox(frame);
    box->setObjectName(name);
    box->setAccessibleName(label);
    box->setToolTip(tip);
    box->setSizeAdjustPolicy(QComboBox::AdjustToContents);
    text->setBuddy(box);
    row->addWidget(text);
    row->addWidget(box);
    row->addStretch(1);
    column->addLayout(row);
    content->setParent(frame);
    column->addWidget(content, 1);
    return frame;
  };
  histogram_ = new PlotView(bottom);
  histogram_->setObjectName(QStringLiteral("weight_histogram"));
  histogram_->setAccessibleName(tr("Histogram of the weights with the quantization grid"));
  histogram_->setToolTip(
      tr("Filled: original weights. Line: quantized ones. Strokes at the bottom: the levels that the chosen row and "
         "group can take; shaded: from the lowest to the highest. Click a cell of the map above to choose"));
  bottom->addWidget(framed(bottom, scope_box_, QStringLiteral("scope"), tr("Count"),
                           tr("Whose weights are counted: the whole matrix, the chosen output channel, or its weights "
                              "that share one scale"),
                           histogram_));
  scope_box_->addItem(tr("Whole matrix"), QStringLiteral("matrix"));
  scope_box_->addItem(tr("Chosen row"), QStringLiteral("row"));
  scope_box_->addItem(tr("Chosen group"), QStringLiteral("group"));
  parts_ = addHeatmap(QStringLiteral("parts"), tr("Parts"));
  parts_->panel().y.title = tr("output channel");
  parts_->describe = [this](Cell cell) { return describeParts(cell); };
  setOwnScale(parts_, {});
  bottom->addWidget(framed(bottom, parts_box_, QStringLiteral("part"), tr("Show"),
                           tr("What the method stores besides codes: scales and zero points of each row and group, "
                              "outliers that stay in 16 bits (SpQR), the sign of each plane times its alpha (BCQ)"),
                           parts_));
  bottom->setSizes({360, 340});
  right->addWidget(bottom);
  right->setStretchFactor(0, 3);
  right->setStretchFactor(1, 2);
  right->setSizes({420, 300});
  connect(scope_box_, &QComboBox::activated, this, [this] {
    refreshHistogram();
    Q_EMIT settingsChanged();
  });
  connect(parts_box_, &QComboBox::activated, this, [this] {
    wanted_part_ = parts_box_->currentData().toString();
    refreshParts();
    Q_EMIT settingsChanged();
  });
  connect(histogram_, &PlotView::pointHovered, this,
          [this](int, int, const QString& text) { Q_EMIT readoutChanged(text); });
  for (PanelCanvas* canvas : errorCanvases())
    connect(canvas, &PanelCanvas::maximizeRequested, this, [this] {
      layers_map_->setVisible(page_ == Layers);
      refreshOverview();
    });
  return right;
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
        return k >= 0 && k < static_cast<std::int64_t>(kinds.size()) ? short_kind(kinds[static_cast<std::size_t>(k)])
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

void WeightsView::setLinear(int layer, const QString& kind, WeightSide a, WeightSide b) {
  const auto shape = [](const WeightSide& side) { return side.original.shape; };
  const bool other = kind != kind_ || layer != layer_;
  layer_ = layer;
  kind_ = kind;
  a_ = std::move(a);
  b_ = std::move(b);
  const auto& extents = a_.shown() ? shape(a_) : shape(b_);
  if (extents.size() == 2) {
    output_ = std::clamp<qint64>(output_, 0, extents[0] - 1);
    input_ = std::clamp<qint64>(input_, 0, extents[1] - 1);
  }
  if (other) detail_->panel().fit();
  refreshDetail();
}

const WeightSide& WeightsView::shownSide() const {
  return modeText() == QLatin1String("B") || (!a_.shown() && b_.shown()) ? b_ : a_;
}

QString WeightsView::linearTitle() const { return tr("layer %1 %2").arg(layer_).arg(short_kind(kind_.toStdString())); }

void WeightsView::refreshDetail() {
  detail_->panel().valueTitle = signed_ ? tr("error W'−W, weight units") : tr("|error|, weight units");
  setPlanes(detail_, signed_ ? a_.signedError : a_.absolute, signed_ ? b_.signedError : b_.absolute, signed_);
  modeApplied();
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

void WeightsView::chooseCell(qint64 output, qint64 input) {
  output_ = std::max<qint64>(0, output);
  input_ = std::max<qint64>(0, input);
  selectionApplied();
  refreshHistogram();
}

std::int64_t WeightsView::groupOf(const LinearGrid& grid, std::int64_t input) const {
  return input >= 0 && input < static_cast<std::int64_t>(grid.group_of.size())
             ? grid.group_of[static_cast<std::size_t>(input)]
             : 0;
}

std::vector<float> WeightsView::levelsOf(const WeightSide& side) const {
  const LinearGrid& grid = side.grid;
  const std::int64_t group = groupOf(grid, input_), at = output_ * grid.groups + group;
  if (grid.kind == LinearGrid::Kind::Affine && at < grid.scale.size())
    return analysis::affine_levels(grid.scale.data[at], grid.zero_point.data[at], grid.bits);
  if (grid.kind == LinearGrid::Kind::Binary && (at + 1) * grid.bits <= grid.alpha.size())
    return analysis::binary_levels({grid.alpha.data + at * grid.bits, static_cast<std::size_t>(grid.bits)},
                                   at < grid.offset.size() ? grid.offset.data[at] : 0.0);
  // No grid is told: what the row takes is all that is known.
  if (side.quantized.shape.size() != 2 || output_ >= side.quantized.shape[0]) return {};
  const std::int64_t columns = side.quantized.shape[1];
  return analysis::distinct_levels({side.quantized.data + output_ * columns, static_cast<std::size_t>(columns)},
                                   kMostLevels);
}

QString WeightsView::gridText(const WeightSide& side, std::size_t levels) const {
  const LinearGrid& grid = side.grid;
  const std::int64_t group = groupOf(grid, input_), at = output_ * grid.groups + group;
  QString place = tr("row %1").arg(output_);
  if (grid.groups > 1) place += tr(", group %1").arg(group);
  if (grid.kind == LinearGrid::Kind::Affine && at < grid.scale.size())
    return tr("%1: scale %2, zero point %3, %4 levels")
        .arg(place, number_text(grid.scale.data[at], 4), number_text(grid.zero_point.data[at], 4))
        .arg(levels);
  if (grid.kind == LinearGrid::Kind::Binary && (at + 1) * grid.bits <= grid.alpha.size()) {
    QStringList alphas;
    for (int k = 0; k < grid.bits; ++k) alphas << number_text(grid.alpha.data[at * grid.bits + k], 3);
    return tr("%1: alpha %2, %3 levels").arg(place, alphas.join(QStringLiteral(", "))).arg(levels);
  }
  return levels > 0 ? tr("%1: %2 distinct values").arg(place).arg(levels)
                    : tr("%1: more than %2 distinct values").arg(place).arg(kMostLevels);
}

void WeightsView::refreshHistogram() {
  PlotSpec spec;
  const WeightSide& side = shownSide();
  spec.x = {tr("weight [weight units]")};
  spec.y = {tr("count"), true};
  spec.emptyText = side.why.isEmpty() ? tr("Choose a linear in the overview at the left.") : side.why;
  if (side.shown() && side.original.shape.size() == 2 && output_ < side.original.shape[0]) {
    const std::int64_t columns = side.original.shape[1];
    const auto scope = static_cast<Scope>(std::max(0, scope_box_->currentIndex()));
    const std::int64_t group = groupOf(side.grid, input_);
    analysis::WeightHistogram counted = side.histogram;
    if (scope != Scope::Matrix) {
      std::vector<float> original, quantized;
      for (std::int64_t j = 0; j < columns; ++j) {
        if (scope == Scope::Group && side.grid.groups > 1 && groupOf(side.grid, j) != group) continue;
        original.push_back(side.original.data[output_ * columns + j]);
        quantized.push_back(side.quantized.data[output_ * columns + j]);
      }
      counted = analysis::weight_histogram(original, quantized, kHistogramBins);
    }
    spec.x.low = counted.low;
    spec.x.high = counted.high;
    spec.y.low = 0.8;
    const double width = (counted.high - counted.low) / kHistogramBins;
    const auto steps = [&](const QString& name, const std::vector<std::int64_t>& counts, bool filled, int color) {
      PlotSeries series;
      series.name = name;
      series.shape = PlotSeries::Shape::Steps;
      series.filled = filled;
      series.color = color;
      for (std::size_t i = 0; i < counts.size(); ++i)
        series.points.append(
            {counted.low + width * static_cast<double>(i), counts[i] == 0 ? 0.8 : static_cast<double>(counts[i])});
      if (!series.points.isEmpty()) series.points.append({counted.high, series.points.last().y});
      spec.series.append(series);
    };
    steps(tr("original W"), counted.original, true, 0);
    steps(tr("quantized W'"), counted.quantized, false, 1);
    const std::vector<float> levels = levelsOf(side);
    for (const float level : levels) spec.rug << level;
    if (levels.size() > 1) spec.spans.append({levels.front(), levels.back(), {}});
    spec.title = tr("%1 weights · %2").arg(counted.count).arg(gridText(side, levels.size()));
  }
  histogram_->setSpec(std::move(spec));
}

void WeightsView::fillPartChoices() {
  const LinearGrid& grid = shownSide().grid;
  QList<std::pair<QString, QString>> choices;
  if (shownSide().kept) choices.append({tr("Outliers kept in 16 bits"), QStringLiteral("kept")});
  if (grid.kind == LinearGrid::Kind::Binary && grid.signs) {
    for (int k = 0; k < grid.bits; ++k)
      choices.append({tr("Plane %1 of %2").arg(k + 1).arg(grid.bits), QStringLiteral("plane%1").arg(k)});
  }
  if (!grid.scale.empty()) choices.append({tr("Scales"), QStringLiteral("scale")});
  if (!grid.zero_point.empty()) choices.append({tr("Zero points"), QStringLiteral("zero")});
  if (!grid.alpha.empty()) choices.append({tr("Alpha of plane 1"), QStringLiteral("alpha")});
  choices.append({tr("Quantized weights"), QStringLiteral("quantized")});
  const QSignalBlocker quiet(parts_box_);
  parts_box_->clear();
  for (const auto& [text, id] : choices) parts_box_->addItem(text, id);
  parts_box_->setCurrentIndex(std::max(0, index_of(*parts_box_, wanted_part_)));
}

void WeightsView::refreshParts() {
  const WeightSide& side = shownSide();
  const LinearGrid& grid = side.grid;
  const QString part = parts_box_->currentData().toString();
  HeatmapPanel& panel = parts_->panel();
  panel.title = parts_box_->currentText();
  panel.note.clear();
  panel.topProfile.clear();
  panel.rightProfile.clear();
  panel.pool = PixelPool::Max;
  panel.x.title = tr("input channel");
  TensorView plane;
  bool is_signed = false;
  if (!side.shown()) {
    setPlanes(parts_, nullptr, nullptr);
    panel.placeholder = side.why.isEmpty() ? tr("Choose a linear in the overview at the left.") : side.why;
    return;
  }
  if (part == QLatin1String("kept")) {
    const analysis::MaskShares& shares = side.keptShares;
    panel.pool = PixelPool::Mean;
    panel.topProfile = shares.by_column;
    panel.rightProfile = shares.by_row;
    panel.topTitle = tr("share of the column");
    panel.rightTitle = tr("share of the row");
    panel.valueTitle = tr("share in 16 bits");
    panel.note = tr("%1 outliers, %2 % of the weights").arg(shares.count).arg(number_text(100.0 * shares.share, 3));
  } else if (part.startsWith(QLatin1String("plane"))) {
    const int k = part.mid(5).toInt();
    plane = analysis::binary_plane(grid, k);
    is_signed = true;
    panel.valueTitle = tr("sign × alpha, weight units");
    panel.note = tr("blue −, orange +; depth: alpha of the group");
  } else if (part == QLatin1String("scale") || part == QLatin1String("zero")) {
    plane = part == QLatin1String("scale") ? grid.scale : grid.zero_point;
    panel.x.title = tr("group");
    panel.valueTitle = part == QLatin1String("scale") ? tr("scale, weight units") : tr("zero point, code units");
    panel.note = tr("%1 groups a row").arg(grid.groups);
  } else if (part == QLatin1String("alpha")) {
    std::vector<float> first(static_cast<std::size_t>(grid.out_features * grid.groups));
    for (std::size_t i = 0; i < first.size(); ++i) first[i] = grid.alpha.data[i * static_cast<std::size_t>(grid.bits)];
    plane = TensorView::own(std::move(first), {grid.out_features, grid.groups});
    panel.x.title = tr("group");
    panel.valueTitle = tr("alpha, weight units");
  } else {
    plane = side.quantized;
    is_signed = true;
    panel.valueTitle = tr("W', weight units");
  }
  const PyramidPtr pyramid = part == QLatin1String("kept") ? side.kept : pyramid_of(plane);
  if (pyramid) {
    setOwnScale(parts_, analysis::fit_scale(analysis::summarize(*pyramid), analysis::ScaleKind::Linear,
                                            analysis::RangeMode::Full, is_signed));
  }
  setPlanes(parts_, pyramid, pyramid, is_signed);
  parts_->update();
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
                     .arg(short_kind(r->kind))
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

QString WeightsView::describeDetail(Cell cell) const {
  QString text = tr("%1 out %2 in %3").arg(linearTitle()).arg(cell.row).arg(cell.col);
  bool original_told = false;
  for (const WeightSide* side : {&a_, &b_}) {
    if (!side->shown() || side->original.shape.size() != 2 || cell.row >= side->original.shape[0] ||
        cell.col >= side->original.shape[1])
      continue;
    const std::int64_t at = cell.row * side->original.shape[1] + cell.col;
    const double w = side->original.data[at], q = side->quantized.data[at];
    if (!std::exchange(original_told, true)) text += tr(" | W %1").arg(number_text(w, 6));
    text += tr(" | %1 %2, error %3").arg(side->label, number_text(q, 6), number_text(q - w, 4));
    if (side->grid.groups > 1) text += tr(", group %1").arg(groupOf(side->grid, cell.col));
    if (!side->grid.kept.empty() && side->grid.kept.data[at] > 0.0f) text += tr(", kept in 16 bits");
  }
  return text;
}

QString WeightsView::describeParts(Cell cell) const {
  const PyramidPtr plane = planeA(parts_);
  if (!plane) return {};
  return tr("%1 %2: output %3, %4 %5: %6")
      .arg(linearTitle(), parts_box_->currentText())
      .arg(cell.row)
      .arg(parts_->panel().x.title)
      .arg(cell.col)
      .arg(number_text(plane->at(cell.row, cell.col), 6));
}

FigureTable::Content WeightsView::tableOf(PanelCanvas* canvas) {
  FigureTable::Content content;
  if (canvas != strip_) return content;
  content.rows = static_cast<int>(strip_->panel().variants().size());
  content.columns = 4;
  content.header = [](int c) {
    return QStringList{tr("variant"), tr("weights: relative error"), tr("function: layer output error"), tr("disagree")}
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
