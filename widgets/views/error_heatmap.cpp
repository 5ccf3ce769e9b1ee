#include "widgets/views/error_heatmap.h"

#include <QCheckBox>
#include <QComboBox>
#include <QHBoxLayout>
#include <QHeaderView>
#include <QJsonObject>
#include <QSignalBlocker>
#include <QSplitter>
#include <QTableView>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "widgets/models/plain_table_model.h"
#include "widgets/paint/axes.h"

namespace qs {
namespace {

constexpr int kMetrics = 6;
/// What the grid box offers besides the method's own groups: a border every so many tokens and channels.
constexpr struct {
  const char* id;
  int size;
} kGrids[] = {{"none", 0}, {"method", 0}, {"32", 32}, {"64", 64}, {"128", 128}};
constexpr int kMethodGrid = 1;

QString metric_title(analysis::ErrorMetric metric) {
  switch (metric) {
    case analysis::ErrorMetric::RelativeError:
      return ErrorHeatmap::tr("relative error ‖x−x'‖/‖x‖");
    case analysis::ErrorMetric::Mse:
      return ErrorHeatmap::tr("mean squared error");
    case analysis::ErrorMetric::SqnrDb:
      return ErrorHeatmap::tr("SQNR, dB");
    case analysis::ErrorMetric::MaxAbsError:
      return ErrorHeatmap::tr("largest |error|");
    case analysis::ErrorMetric::Cosine:
      return ErrorHeatmap::tr("cosine");
    case analysis::ErrorMetric::FunctionalError:
      return ErrorHeatmap::tr("attention output error");
  }
  return {};
}

PyramidPtr pyramid_of(const TensorView& plane) {
  return plane.empty() ? nullptr : std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(plane));
}

/// The labels without the part after " · " that all of them share: the model.
QStringList short_labels(const std::vector<analysis::VariantErrors>& variants) {
  QStringList labels;
  for (const auto& variant : variants) labels << QString::fromStdString(variant.label);
  if (labels.size() < 2) return labels;
  const qsizetype at = labels.first().lastIndexOf(QStringLiteral(" · "));
  if (at <= 0) return labels;
  const QString model = labels.first().mid(at);
  for (const QString& label : labels)
    if (!label.endsWith(model) || label.size() == model.size()) return labels;
  for (QString& label : labels) label.chop(model.size());
  return labels;
}

}  // namespace

ErrorHeatmap::ErrorHeatmap(SelectionHub& hub, QWidget* parent)
    : HeatmapView(QStringLiteral("error"), tr("Quantization error"), hub, parent) {
  buildControls();
  buildBody();
}

void ErrorHeatmap::buildControls() {
  auto* row = controlsLayout();
  const auto add = [&](QWidget* widget, const QString& name, const QString& accessible, const QString& tip) {
    widget->setObjectName(name);
    widget->setAccessibleName(accessible);
    widget->setToolTip(tip);
    row->insertWidget(row->count() - 1, widget);
  };
  tensor_box_ = new QComboBox(this);
  tensor_box_->addItem(tr("Keys"), QStringLiteral("key"));
  tensor_box_->addItem(tr("Values"), QStringLiteral("value"));
  add(tensor_box_, QStringLiteral("tensor"), tr("Tensor"), tr("Keys or values of the chosen layer"));
  metric_box_ = new QComboBox(this);
  for (int i = 0; i < kMetrics; ++i) metric_box_->addItem(metric_title(static_cast<analysis::ErrorMetric>(i)));
  add(metric_box_, QStringLiteral("metric"), tr("Metric of the overview"),
      tr("What colours the overview; the strip below always shows a reconstruction and a functional metric together"));
  metric_box_->setMinimumContentsLength(14);
  metric_box_->setSizeAdjustPolicy(QComboBox::AdjustToMinimumContentsLengthWithIcon);
  grid_box_ = new QComboBox(this);
  grid_box_->addItems({tr("No groups"), tr("Scale groups"), tr("Grid 32"), tr("Grid 64"), tr("Grid 128")});
  add(grid_box_, QStringLiteral("grid"), tr("Group grid"),
      tr("Borders over the token by channel map: of what shares a scale in the shown method, or every so many tokens "
         "and channels. Borders that would lie too close appear when you zoom in"));
  signed_button_ = new QToolButton(this);
  signed_button_->setText(QStringLiteral("±"));
  signed_button_->setCheckable(true);
  add(signed_button_, QStringLiteral("signed"), tr("Signed error"),
      tr("Shows the signed error, reconstructed minus original, instead of its magnitude"));
  connect(tensor_box_, &QComboBox::activated, this, [this](int i) {
    const QString tensor = tensor_box_->itemData(i).toString();
    choose([&](Selection& s) { s.tensor = tensor; });
  });
  connect(metric_box_, &QComboBox::activated, this,
          [this](int i) { setMetric(static_cast<analysis::ErrorMetric>(i)); });
  connect(grid_box_, &QComboBox::currentIndexChanged, this, [this] {
    refreshOverlays();
    Q_EMIT settingsChanged();
  });
  connect(signed_button_, &QToolButton::toggled, this, &ErrorHeatmap::setSigned);
}

void ErrorHeatmap::buildBody() {
  auto* columns = new QSplitter(Qt::Horizontal, body());
  columns->setChildrenCollapsible(false);
  auto* left = new QWidget(columns);
  auto* stack = new QVBoxLayout(left);
  stack->setContentsMargins(0, 0, 0, 0);
  stack->setSpacing(0);
  detail_ = addHeatmap(QStringLiteral("detail"), tr("Token × channel"));
  for (int i = 0; i < kMostVariants; ++i) {
    auto* canvas = addHeatmap(QStringLiteral("overview%1").arg(i), tr("Overview"));
    canvas->panel().cellTexts = true;
    canvas->panel().x.title.clear();
    canvas->panel().showColorBar = false;
    canvas->setMinimumHeight(84);
    canvas->setVisible(false);
    canvas->describe = [this, i](Cell cell) { return describeOverview(i, cell); };
    setOwnScale(canvas, {});
    overview_.push_back(canvas);
    stack->addWidget(canvas, 2);
  }
  heads_ = addHeatmap(QStringLiteral("heads"), tr("KV head × layer"));
  heads_->panel().cellTexts = true;
  heads_->panel().x.title = tr("layer");
  heads_->panel().y.title = tr("KV head");
  heads_->panel().valueTitle = tr("relative error");
  stack->addWidget(heads_, 3);
  columns->addWidget(left);

  auto* right = new QSplitter(Qt::Vertical, columns);
  right->setChildrenCollapsible(false);
  auto* top = new QSplitter(Qt::Horizontal, right);
  top->setChildrenCollapsible(false);
  detail_->panel().x.title = tr("channel");
  detail_->panel().y.title = tr("token");
  detail_->panel().topTitle = tr("mean over tokens");
  detail_->panel().rightTitle = tr("mean over channels");
  top->addWidget(detail_);
  top->addWidget(buildSide());
  top->setStretchFactor(0, 5);
  top->setStretchFactor(1, 1);
  top->setSizes({620, 210});
  strip_ = new MetricStripCanvas(QStringLiteral("metrics"), right);
  strip_->panel().title = tr("Reconstruction beside function");
  strip_->panel().reconstructionTitle = tr("reconstruction: relative error of the tensor");
  strip_->panel().functionalTitle = tr("function: relative error of attention output");
  strip_->panel().placeholder = tr("No quantized variant yet.");
  strip_->setAccessibleName(strip_->panel().title);
  strip_->setToolTip(
      tr("Mean over layers and tensors. Disagree (red): reconstruction ranks the variants differently from function - "
         "some "
         "other variant keeps the tensor closer to the original but the attention output farther from it, or the other "
         "way round. What the model computes is what counts"));
  addCanvas(strip_);
  right->addWidget(top);
  right->addWidget(strip_);
  right->setStretchFactor(0, 5);
  right->setStretchFactor(1, 1);
  right->setSizes({500, 130});
  columns->addWidget(right);
  columns->setStretchFactor(0, 2);
  columns->setStretchFactor(1, 5);
  columns->setSizes({300, 760});
  auto* layout = new QVBoxLayout(body());
  layout->setContentsMargins(0, 0, 0, 0);
  layout->addWidget(columns);
  for (HeatmapCanvas* canvas : {detail_, heads_})
    canvas->describe = [this, canvas](Cell cell) { return describe(canvas, cell); };
  connect(spots_, &QTableView::activated, this, [this](const QModelIndex& index) { jumpTo(index.row()); });
}

QWidget* ErrorHeatmap::buildSide() {
  auto* side = new QWidget(body());
  spots_ = new QTableView(side);
  spots_->setObjectName(QStringLiteral("hotSpots"));
  spots_->setAccessibleName(tr("Hot spots: cells of largest error"));
  spots_->setToolTip(tr("The cells of largest |error|, exact over all cells; Enter or double click jumps there"));
  spots_model_ = new PlainTableModel(this);
  spots_->setModel(spots_model_);
  spots_->setSelectionBehavior(QAbstractItemView::SelectRows);
  spots_->setEditTriggers(QAbstractItemView::NoEditTriggers);
  spots_->setTabKeyNavigation(false);
  spots_->verticalHeader()->hide();
  spots_->verticalHeader()->setDefaultSectionSize(20);
  spots_->horizontalHeader()->setMinimumSectionSize(30);
  spots_->setMinimumWidth(150);
  codes_ = new CodeStripCanvas(QStringLiteral("codes"), side);
  codes_->panel().title = tr("Codes");
  codes_->panel().placeholder = tr("No codes: nothing is quantized.");
  codes_->setAccessibleName(tr("Histogram of the codes"));
  codes_->setToolTip(tr(
      "How many cells hold each code, on a linear scale. The lowest and highest code (second colour) are where values "
      "saturate; codes that no cell holds waste bits"));
  codes_->setFixedHeight(92);
  addCanvas(codes_);
  const auto box = [&](const QString& text, const QString& name, const QString& tip) {
    auto* check = new QCheckBox(text, side);
    check->setObjectName(name);
    check->setAccessibleName(text);
    check->setToolTip(tip);
    connect(check, &QCheckBox::toggled, this, [this] {
      refreshOverlays();
      Q_EMIT settingsChanged();
    });
    return check;
  };
  window_box_ =
      box(tr("Full-precision tokens"), QStringLiteral("window"),
          tr("Hatches the tokens that stay in full precision: the window of newest ones and the sinks, each in "
             "its own way"));
  {
    const QSignalBlocker quiet(window_box_);
    window_box_->setChecked(true);
  }
  saturation_box_ = box(tr("Saturated cells"), QStringLiteral("saturation"),
                        tr("Dots on the cells that hold the lowest or highest code"));
  picks_box_ = box(tr("Picked outliers"), QStringLiteral("picks"),
                   tr("Points on the elements that a dense-and-sparse method keeps in full precision"));
  evicted_box_ =
      box(tr("Evicted tokens"), QStringLiteral("evicted"), tr("Crosses out the tokens that a head no longer holds"));
  for (QCheckBox* check : {picks_box_, evicted_box_}) {
    const QSignalBlocker quiet(check);
    check->setChecked(true);
  }
  auto* layout = new QVBoxLayout(side);
  layout->setContentsMargins(0, 0, 0, 0);
  layout->setSpacing(2);
  for (QWidget* widget :
       std::initializer_list<QWidget*>{spots_, codes_, window_box_, picks_box_, evicted_box_, saturation_box_})
    layout->addWidget(widget);
  return side;
}

void ErrorHeatmap::setMetric(analysis::ErrorMetric metric) {
  metric_ = metric;
  metric_box_->setCurrentIndex(static_cast<int>(metric));
  refreshOverview();
  Q_EMIT settingsChanged();
}

void ErrorHeatmap::setSigned(bool is_signed) {
  if (signed_ == is_signed) return;
  signed_ = is_signed;
  signed_button_->setChecked(is_signed);
  refreshDetail();
  Q_EMIT settingsChanged();
}

void ErrorHeatmap::setOverview(std::vector<analysis::VariantErrors> variants) {
  variants_ = std::move(variants);
  if (variants_.size() > static_cast<std::size_t>(kMostVariants)) variants_.resize(kMostVariants);
  refreshOverview();
}

void ErrorHeatmap::refreshOverview() {
  const QStringList labels = short_labels(variants_);
  std::vector<PyramidPtr> planes;
  analysis::ColorScale shared;
  bool first = true;
  for (const auto& variant : variants_) {
    planes.push_back(pyramid_of(analysis::overview_matrix(variant, metric_)));
    if (!planes.back()) continue;
    const auto scale = analysis::fit_scale(analysis::summarize(*planes.back()), analysis::ScaleKind::Linear,
                                           analysis::RangeMode::Full, false);
    shared = first ? scale : analysis::united(shared, scale);
    first = false;
  }
  for (std::size_t i = 0; i < overview_.size(); ++i) {
    const bool used = i < variants_.size();
    overview_[i]->setVisible(used);
    if (!used) {
      setPlanes(overview_[i], nullptr, nullptr);
      continue;
    }
    HeatmapPanel& panel = overview_[i]->panel();
    setOwnScale(overview_[i], shared);
    panel.title = labels[static_cast<qsizetype>(i)];
    panel.note = i == 0 ? metric_title(metric_) : QString();
    panel.y.label = [kinds = variants_[i].kinds](std::int64_t k) {
      return k < static_cast<std::int64_t>(kinds.size()) ? QString::fromStdString(kinds[static_cast<std::size_t>(k)])
                                                         : QString();
    };
    panel.x.label = [](std::int64_t l) { return QStringLiteral("L%1").arg(l); };
    setPlanes(overview_[i], planes[i], planes[i]);
  }
  std::vector<analysis::MetricPair> pairs;
  for (const auto& variant : variants_) {
    analysis::MetricPair pair;
    pair.label = labels[static_cast<qsizetype>(pairs.size())].toStdString();
    double functional = 0.0, count = 0.0, functional_count = 0.0;
    for (const auto& layer : variant.reports)
      for (const TensorReport& report : layer) {
        pair.reconstruction += report.relative_error;
        ++count;
        if (std::isfinite(report.functional_error)) functional += report.functional_error, ++functional_count;
      }
    pair.reconstruction = count > 0 ? pair.reconstruction / count : std::numeric_limits<double>::quiet_NaN();
    pair.functional = functional_count > 0 ? functional / functional_count : std::numeric_limits<double>::quiet_NaN();
    pairs.push_back(pair);
  }
  strip_->panel().setVariants(std::move(pairs));
  strip_->update();
  selectionApplied();
}

void ErrorHeatmap::setHeads(TensorView a, TensorView b) { setPlanes(heads_, pyramid_of(a), pyramid_of(b)); }

void ErrorHeatmap::setDetail(int layer, const QString& tensor, ErrorSide a, ErrorSide b, qint64 headDim) {
  layer_ = layer;
  tensor_ = tensor;
  a_ = std::move(a);
  b_ = std::move(b);
  head_dim_ = headDim;
  const QSignalBlocker quiet(tensor_box_);
  tensor_box_->setCurrentIndex(std::max(0, tensor_box_->findData(tensor)));
  refreshDetail();
}

const ErrorSide& ErrorHeatmap::shownSide() const {
  return modeText() == QLatin1String("B") || (!a_.map && b_.map) ? b_ : a_;
}

void ErrorHeatmap::refreshDetail() {
  detail_->panel().valueTitle = signed_ ? tr("error x'−x, activation units") : tr("|error|, activation units");
  setPlanes(detail_, signed_ ? a_.signedError : a_.absolute, signed_ ? b_.signedError : b_.absolute, signed_);
  modeApplied();
  selectionApplied();
}

void ErrorHeatmap::modeApplied() {
  if (!detail_) return;
  const ErrorSide& side = shownSide();
  HeatmapPanel& panel = detail_->panel();
  const QString mode = modeText();
  panel.title = mode == QLatin1String("A") || mode == QLatin1String("B")
                    ? tr("%1, layer %2, %3")
                          .arg(tensor_ == QLatin1String("value") ? tr("Values") : tr("Keys"))
                          .arg(layer_)
                          .arg(mode == QLatin1String("A") ? a_.label : b_.label)
                    : tr("%1, layer %2, %3")
                          .arg(tensor_ == QLatin1String("value") ? tr("Values") : tr("Keys"))
                          .arg(layer_)
                          .arg(mode);
  if (panel.isEmpty()) {
    const ErrorSide& wanted = mode == QLatin1String("B") ? b_ : a_;
    if (!wanted.why.isEmpty()) panel.placeholder = wanted.why;
  }
  const bool single = mode == QLatin1String("A") || mode == QLatin1String("B");
  const bool profiles = single && side.map && !panel.isEmpty();
  panel.topProfile = profiles ? side.map->by_channel : std::vector<float>{};
  panel.rightProfile = profiles ? side.map->by_token : std::vector<float>{};
  refreshOverlays();
  refreshHotSpots();
}

void ErrorHeatmap::refreshOverlays() {
  HeatmapPanel& panel = detail_->panel();
  const ErrorSide& side = shownSide();
  const KvOverlayPtr overlay = side.map ? side.overlay : nullptr;
  const int grid = std::clamp(grid_box_->currentIndex(), 0, static_cast<int>(std::size(kGrids)) - 1);
  show_overlay(panel, overlay,
               {.groups = grid == kMethodGrid,
                .picks = picks_box_->isChecked(),
                .window = window_box_->isChecked(),
                .evicted = evicted_box_->isChecked()});
  picks_box_->setEnabled(overlay && !overlay->picks.empty());
  evicted_box_->setEnabled(overlay && !overlay->kept.empty());
  saturation_box_->setEnabled(!side.saturation.empty());
  if (saturation_box_->isChecked() && !side.saturation.empty()) {
    PanelMarks dots;
    dots.label = tr("lowest or highest code");
    dots.marked = [mask = side.saturation](std::int64_t row, std::int64_t col) {
      return mask.data[row * mask.shape[1] + col] > 0.0f;
    };
    panel.marks.push_back(std::move(dots));
  }
  codes_->panel().codes = side.codes;
  codes_->panel().title = side.countsWidths ? tr("Code widths") : tr("Codes");
  codes_->panel().byWidth = side.countsWidths;
  codes_->update();
  panel.x.borders.clear();
  panel.y.borders.clear();
  if (const int size = kGrids[grid].size) {
    for (std::int64_t c = size; c < panel.cols(); c += size) panel.x.borders.push_back(static_cast<double>(c));
    for (std::int64_t r = size; r < panel.rows(); r += size) panel.y.borders.push_back(static_cast<double>(r));
  } else if (head_dim_ > 0) {
    for (std::int64_t c = head_dim_; c < panel.cols(); c += head_dim_)
      panel.x.borders.push_back(static_cast<double>(c));
  }
  if (side.report.levels > 0)
    panel.note = tr("%1 of %2 levels used · %3 % at the extremes")
                     .arg(side.report.levels_used)
                     .arg(side.report.levels)
                     .arg(number_text(100.0 * side.report.saturated_fraction, 2));
  else if (side.countsWidths && overlay)
    panel.note = tr("%1 bit a code on average · %2 % at the extremes")
                     .arg(number_text(overlay->mean_code_bits, 3))
                     .arg(number_text(100.0 * analysis::marked_fraction(side.saturation), 2));
  else
    panel.note.clear();
  detail_->update();
}

void ErrorHeatmap::refreshHotSpots() {
  const ErrorSide& side = shownSide();
  QVector<PlainTableModel::Row> rows;
  for (const auto& spot : side.hotSpots) {
    const Selection& s = selection();
    if (s.channelEnd > s.channelBegin + 1 && (spot.channel < s.channelBegin || spot.channel >= s.channelEnd)) continue;
    rows.push_back({static_cast<qint64>(spot.token), static_cast<qint64>(spot.channel),
                    static_cast<double>(spot.original), static_cast<double>(spot.error)});
  }
  spots_model_->setTable({tr("token"), tr("channel"), tr("original"), tr("error")}, rows);
  spots_->resizeColumnsToContents();
}

void ErrorHeatmap::jumpTo(int row) {
  if (row < 0 || row >= spots_model_->rowCount()) return;
  const auto token = spots_model_->data(spots_model_->index(row, 0), Qt::EditRole).toInt();
  const auto channel = spots_model_->data(spots_model_->index(row, 1), Qt::EditRole).toInt();
  HeatmapPanel& panel = detail_->panel();
  if (panel.isFitted() && panel.rows() > 64)
    panel.setViewport(QRectF(channel - panel.viewport().width() / 8, token - panel.viewport().height() / 8,
                             panel.viewport().width() / 4, panel.viewport().height() / 4));
  detail_->setCursorCell({token, channel});
  cellActivated(detail_, token, channel);
}

void ErrorHeatmap::selectionApplied() {
  const Selection& s = selection();
  for (HeatmapCanvas* canvas : overview_) {
    canvas->panel().selectedCol = s.layer;
    canvas->update();
  }
  heads_->panel().selectedCol = s.layer;
  heads_->panel().selectedRow = s.kvHead;
  heads_->update();
  HeatmapPanel& panel = detail_->panel();
  panel.selectedCol = s.channelEnd == s.channelBegin + 1 ? s.channelBegin : -1;
  panel.selectedRow = s.tokenEnd == s.tokenBegin + 1 ? s.tokenBegin : -1;
  const bool channels = s.channelEnd > s.channelBegin + 1, rows = s.tokenEnd > s.tokenBegin + 1;
  panel.brush = channels || rows ? QRectF(QPointF(channels ? s.channelBegin : 0, rows ? s.tokenBegin : 0),
                                          QPointF(channels ? s.channelEnd : static_cast<double>(panel.cols()),
                                                  rows ? s.tokenEnd : static_cast<double>(panel.rows())))
                                 : QRectF();
  refreshHotSpots();
  detail_->update();
}

void ErrorHeatmap::cellActivated(HeatmapCanvas* canvas, qint64 row, qint64 col) {
  choose([&](Selection& s) {
    if (canvas == detail_) {
      s.channelBegin = static_cast<int>(col);
      s.channelEnd = static_cast<int>(col) + 1;
      s.tokenBegin = static_cast<int>(row);
      s.tokenEnd = static_cast<int>(row) + 1;
      if (head_dim_ > 0) s.kvHead = static_cast<int>(col / head_dim_);
    } else {
      s.layer = static_cast<int>(col);
      if (canvas == heads_)
        s.kvHead = static_cast<int>(row);
      else
        s.tensor = row == 1 ? QStringLiteral("value") : QStringLiteral("key");
    }
  });
}

void ErrorHeatmap::cellsBrushed(HeatmapCanvas* canvas, const QRect& cells) {
  if (canvas != detail_) return;
  choose([&](Selection& s) {
    s.channelBegin = cells.left();
    s.channelEnd = cells.left() + cells.width();
    s.tokenBegin = cells.top();
    s.tokenEnd = cells.top() + cells.height();
  });
}

void ErrorHeatmap::brushCleared() {
  choose([](Selection& s) { s.channelBegin = s.channelEnd = s.tokenBegin = s.tokenEnd = -1; });
}

QString ErrorHeatmap::describeOverview(int variant, Cell cell) const {
  const auto v = static_cast<std::size_t>(variant);
  if (v >= variants_.size()) return {};
  const auto& reports = variants_[v].reports;
  if (static_cast<std::size_t>(cell.col) >= reports.size() ||
      static_cast<std::size_t>(cell.row) >= reports[static_cast<std::size_t>(cell.col)].size())
    return {};
  const TensorReport& r = reports[static_cast<std::size_t>(cell.col)][static_cast<std::size_t>(cell.row)];
  return tr("%1 L%2 %3 | relative error %4 | SQNR %5 dB | attention output error %6 | %7 bit")
      .arg(QString::fromStdString(variants_[v].label))
      .arg(cell.col)
      .arg(QString::fromStdString(variants_[v].kinds[static_cast<std::size_t>(cell.row)]))
      .arg(number_text(r.relative_error), number_text(r.sqnr_db), number_text(r.functional_error),
           number_text(r.effective_bits));
}

QString ErrorHeatmap::describe(const HeatmapCanvas* canvas, Cell cell) const {
  if (canvas == heads_)
    return tr("L%1 KV head %2 | relative error %3").arg(cell.col).arg(cell.row).arg(valuesText(canvas, cell));
  const QString kind = tensor_ == QLatin1String("value") ? QStringLiteral("V") : QStringLiteral("K");
  QString text = tr("L%1 %2 h%3 ch %4 (global %5) tok %6 '%7'")
                     .arg(layer_)
                     .arg(kind)
                     .arg(head_dim_ > 0 ? cell.col / head_dim_ : 0)
                     .arg(head_dim_ > 0 ? cell.col % head_dim_ : cell.col)
                     .arg(cell.col)
                     .arg(cell.row)
                     .arg(tokens_.value(static_cast<qsizetype>(cell.row)));
  const auto add = [&](const ErrorSide& side) {
    if (!side.map || cell.row >= side.map->tokens || cell.col >= side.map->channels) return;
    const std::int64_t i = cell.row * side.map->channels + cell.col;
    const double original = side.map->original.data[i], after = side.map->reconstructed.data[i],
                 error = side.map->absolute_error.data[i];
    if (!text.contains(QStringLiteral("| original"))) text += tr(" | original %1").arg(number_text(original, 6));
    text += tr(" | %1 %2 | err %3 (%4 %)")
                .arg(side.label, number_text(after, 6), number_text(error, 4),
                     number_text(original != 0 ? 100.0 * error / std::fabs(original) : 0.0, 3));
  };
  add(a_);
  add(b_);
  const ErrorSide& side = shownSide();
  if (!side.map || !side.overlay) return text;
  const KvOverlay& o = *side.overlay;
  if (!o.kept.empty() && o.kept.data[cell.col / o.head_dim * o.tokens + cell.row] == 0.0f)
    return text + tr(" | evicted");
  if (!o.picks.empty() && o.picks.data[cell.row * o.channels() + cell.col] > 0.0f)
    return text + tr(" | outlier, kept in full precision");
  if (cell.row < o.quantized_begin) return text + tr(" | sink, in full precision");
  if (cell.row >= o.quantized_end) return text + tr(" | in the window, full precision");
  const auto [low, high] = o.range_of(cell.row, cell.col);
  if (low != low) return text;
  const QString range = QStringLiteral("%1 to %2").arg(number_text(low, 4), number_text(high, 4));
  const std::int64_t group = o.group_of(cell.row, cell.col);
  text += o.has_levels() ? tr(" | %n levels in %1", nullptr, o.levels[static_cast<std::size_t>(group)]).arg(range)
                         : tr(" | reconstructed range %1").arg(range);
  return text;
}

FigureTable::Content ErrorHeatmap::tableOf(PanelCanvas* canvas) {
  FigureTable::Content content;
  if (canvas == codes_) {
    content.rows = static_cast<int>(codes_->panel().codes.counts.size());
    content.columns = 2;
    content.header = [widths = codes_->panel().byWidth](int c) {
      return c == 0 ? (widths ? tr("bits of the code") : tr("code")) : tr("cells");
    };
    content.cell = [counts = codes_->panel().codes.counts](int r, int c) -> QVariant {
      return c == 0 ? QVariant(r) : QVariant(static_cast<qint64>(counts[static_cast<std::size_t>(r)]));
    };
  }
  if (canvas != strip_) return content;
  content.rows = static_cast<int>(strip_->panel().variants().size());
  content.columns = 4;
  content.header = [](int c) {
    return QStringList{tr("variant"), tr("reconstruction: relative error"),
                       tr("function: relative error of attention output"), tr("disagree")}
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

void ErrorHeatmap::saveOwn(QJsonObject& settings) const {
  settings[QStringLiteral("metric")] = QLatin1String(analysis::error_metric_id(metric_));
  settings[QStringLiteral("signed")] = signed_;
  settings[QStringLiteral("saturation")] = saturation_box_->isChecked();
  settings[QStringLiteral("window")] = window_box_->isChecked();
  settings[QStringLiteral("picks")] = picks_box_->isChecked();
  settings[QStringLiteral("evicted")] = evicted_box_->isChecked();
  settings[QStringLiteral("grid")] = QLatin1String(kGrids[std::max(0, grid_box_->currentIndex())].id);
}

void ErrorHeatmap::restoreOwn(const QJsonObject& settings) {
  for (int i = 0; i < kMetrics; ++i)
    if (settings[QStringLiteral("metric")].toString() ==
        QLatin1String(analysis::error_metric_id(static_cast<analysis::ErrorMetric>(i))))
      metric_ = static_cast<analysis::ErrorMetric>(i);
  metric_box_->setCurrentIndex(static_cast<int>(metric_));
  signed_ = settings[QStringLiteral("signed")].toBool();
  {
    const QSignalBlocker quiet(signed_button_);
    signed_button_->setChecked(signed_);
  }
  saturation_box_->setChecked(settings[QStringLiteral("saturation")].toBool());
  window_box_->setChecked(settings[QStringLiteral("window")].toBool(true));
  picks_box_->setChecked(settings[QStringLiteral("picks")].toBool(true));
  evicted_box_->setChecked(settings[QStringLiteral("evicted")].toBool(true));
  grid_box_->setCurrentIndex(0);
  for (int i = 0; i < static_cast<int>(std::size(kGrids)); ++i)
    if (settings[QStringLiteral("grid")].toString() == QLatin1String(kGrids[i].id)) grid_box_->setCurrentIndex(i);
  refreshOverview();
  refreshDetail();
}

}  // namespace qs
