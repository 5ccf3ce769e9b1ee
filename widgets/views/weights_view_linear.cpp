// The chosen linear: error map, histogram with its grid, and what the method stores beside the codes.

#include <QComboBox>
#include <QHBoxLayout>
#include <QLabel>
#include <QSignalBlocker>
#include <QSplitter>
#include <QStackedWidget>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>
#include <utility>

#include "widgets/paint/axes.h"
#include "widgets/plot_view.h"
#include "widgets/views/linear_names.h"
#include "widgets/views/weights_view.h"

namespace qs {
namespace {

constexpr std::size_t kMostLevels = 512;  // beyond: a row of its own values, no grid worth drawing

PyramidPtr pyramid_of(const TensorView& plane) {
  return plane.empty() ? nullptr : std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(plane));
}

}  // namespace

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

QString WeightsView::linearTitle() const {
  return tr("layer %1 %2").arg(layer_).arg(short_linear_name(kind_.toStdString()));
}

void WeightsView::refreshDetail() {
  detail_->panel().valueTitle = signed_ ? tr("error W'−W, weight units") : tr("|error|, weight units");
  setPlanes(detail_, signed_ ? a_.signedError : a_.absolute, signed_ ? b_.signedError : b_.absolute, signed_);
  modeApplied();
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
  spec.x = {tr("weight")};
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
  parts_box_->setCurrentIndex(std::max(0, parts_box_->findData(wanted_part_)));
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

}  // namespace qs
