#include "widgets/views/outlier_view.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QJsonObject>
#include <QLabel>
#include <QSignalBlocker>
#include <QSpinBox>
#include <QSplitter>
#include <QVBoxLayout>
#include <algorithm>

#include "widgets/paint/axes.h"

namespace qs {
namespace {

struct Grouping {
  const char* text;
  int size;
  bool tokens;
};
constexpr Grouping kGroupings[] = {{"No groups", 0, false},      {"32 channels", 32, false}, {"64 channels", 64, false},
                                   {"128 channels", 128, false}, {"32 tokens", 32, true},    {"64 tokens", 64, true},
                                   {"128 tokens", 128, true}};

PyramidPtr pyramid_of(const TensorView& plane) {
  return plane.empty() ? nullptr : std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(plane));
}

const char* const kQuantizers[] = {"none", "as_they_lie", "in_its_order"};

/// The same with its columns in another order; null when only coarse levels are known.
PyramidPtr in_order(const PyramidPtr& plane, const std::vector<std::int64_t>& order) {
  if (!plane || plane->levels.empty() || !plane->exact() || plane->cols != static_cast<std::int64_t>(order.size()))
    return nullptr;
  return pyramid_of(analysis::columns_in_order(plane->levels.front().max, order));
}

bool is_kv(const QString& tensor) { return !tensor.endsWith(QLatin1String("_proj")); }

}  // namespace

OutlierView::OutlierView(SelectionHub& hub, QWidget* parent)
    : HeatmapView(QStringLiteral("outliers"), tr("Outlier channels"), hub, parent) {
  buildControls();
  rows_ = new QSplitter(Qt::Vertical, body());
  top_ = new QSplitter(Qt::Horizontal, rows_);
  bottom_ = new QSplitter(Qt::Horizontal, rows_);
  map_ = addHeatmap(QStringLiteral("map"), tr("Channel × layer"));
  ranked_ = addLines(QStringLiteral("ranked"), tr("Ranked channels"));
  detail_ = addHeatmap(QStringLiteral("detail"), tr("Channel × token"));
  persistence_ = addHeatmap(QStringLiteral("persistence"), tr("Same channels in every layer?"));
  top_->addWidget(map_);
  top_->addWidget(ranked_);
  bottom_->addWidget(detail_);
  bottom_->addWidget(persistence_);
  rows_->setStretchFactor(0, 4);
  rows_->setStretchFactor(1, 5);
  for (QSplitter* splitter : {top_, bottom_}) {
    splitter->setStretchFactor(0, 3);
    splitter->setStretchFactor(1, 2);
    splitter->setChildrenCollapsible(false);
    splitter->setSizes({600, 400});
  }
  auto* layout = new QVBoxLayout(body());
  layout->setContentsMargins(0, 0, 0, 0);
  layout->addWidget(rows_);

  map_->panel().y.title = tr("layer");
  map_->panel().placeholder = detail_->panel().placeholder = ranked_->panel().placeholder = tr("Nothing to show yet.");
  detail_->panel().y.title = tr("token");
  detail_->panel().valueTitle = tr("|x|, activation units");
  persistence_->panel().x.title = persistence_->panel().y.title = tr("layer");
  persistence_->panel().cellTexts = true;
  persistence_->panel().placeholder = tr("Needs at least two layers.");
  analysis::ColorScale unit;
  setOwnScale(persistence_, unit);
  ranked_->panel().logY = true;
  ranked_->panel().xTitle = tr("rank of the channel");
  for (HeatmapCanvas* canvas : {map_, detail_, persistence_})
    canvas->describe = [this, canvas](Cell cell) { return describe(canvas, cell); };
  ranked_->describe = [this](qint64 rank) {
    const auto& ranking = rank_a_.order.empty() ? rank_b_ : rank_a_;
    if (rank < 0 || static_cast<std::size_t>(rank) >= ranking.order.size()) return QString();
    const auto i = static_cast<std::size_t>(rank);
    return tr("L%1 %2 rank %3: %4 | %5 %6, %7 × median")
        .arg(selection().layer)
        .arg(tensorTitle(tensor_))
        .arg(rank)
        .arg(channelText(ranking.order[i]))
        .arg(QLatin1String(analysis::channel_stat_id(stat_)), number_text(ranking.values[i], 6),
             number_text(ranking.median > 0 ? ranking.values[i] / ranking.median : 0.0, 3));
  };
  connect(ranked_, &LineCanvas::thresholdDragged, this, [this](double value) {
    const auto& ranking = rank_a_.order.empty() ? rank_b_ : rank_a_;
    if (ranking.median > 0) setThreshold(value / ranking.median);
  });
  connect(ranked_, &LineCanvas::activated, this, [this](qint64 rank) {
    const auto& ranking = rank_a_.order.empty() ? rank_b_ : rank_a_;
    if (rank < 0 || static_cast<std::size_t>(rank) >= ranking.order.size()) return;
    const auto channel = static_cast<int>(ranking.order[static_cast<std::size_t>(rank)]);
    choose([&](Selection& s) {
      s.channelBegin = channel;
      s.channelEnd = channel + 1;
    });
  });
  setTensors({QStringLiteral("key"), QStringLiteral("key_pre_rope"), QStringLiteral("value")});
}

void OutlierView::buildControls() {
  auto* row = controlsLayout();
  const auto combo = [&](const QString& name, const QString& accessible, const QString& tip) {
    auto* box = new QComboBox(this);
    box->setObjectName(name);
    box->setAccessibleName(accessible);
    box->setToolTip(tip);
    row->insertWidget(row->count() - 1, box);
    return box;
  };
  tensor_box_ =
      combo(QStringLiteral("tensor"), tr("Tensor"), tr("Which tensor: keys, values, or the input of a linear layer"));
  stat_box_ = combo(QStringLiteral("stat"), tr("Statistic"), tr("Statistic of a channel over all tokens"));
  for (int i = 0; i < analysis::kChannelStats; ++i)
    stat_box_->addItem(QLatin1String(analysis::channel_stat_id(static_cast<analysis::ChannelStat>(i))));
  group_box_ = combo(QStringLiteral("groups"), tr("Group borders"),
                     tr("Borders of quantization groups over the token detail: along channels (one scale per token) or "
                        "along tokens (one scale per channel)"));
  for (const Grouping& g : kGroupings) group_box_->addItem(tr(g.text));
  quantizer_box_ = combo(
      QStringLiteral("quantizer"), tr("Quantizer of B"),
      tr("What the method of variant B does here: borders of its scale groups, the outliers it picks, tokens it keeps "
         "or evicts, and how far its range goes in each channel; in the order in which it takes the channels if it has "
         "one of its own"));
  quantizer_box_->addItems({tr("No quantizer"), tr("Quantizer of B"), tr("B, its channel order")});
  top_box_ = new QSpinBox(this);
  top_box_->setObjectName(QStringLiteral("topChannels"));
  top_box_->setPrefix(tr("top "));
  top_box_->setRange(1, 512);
  top_box_->setValue(8);
  top_box_->setAccessibleName(tr("Channels compared between layers"));
  top_box_->setToolTip(tr("How many of the largest channels of each layer are compared; 1.00 means the same channels"));
  row->insertWidget(row->count() - 1, top_box_);
  connect(tensor_box_, &QComboBox::activated, this, [this](int i) { setTensor(tensor_box_->itemData(i).toString()); });
  connect(stat_box_, &QComboBox::activated, this, [this](int i) { setStat(static_cast<analysis::ChannelStat>(i)); });
  connect(group_box_, &QComboBox::currentIndexChanged, this, [this] {
    refreshGroups();
    Q_EMIT settingsChanged();
  });
  connect(quantizer_box_, &QComboBox::activated, this, [this](int i) { setQuantizerShown(static_cast<Quantizer>(i)); });
  connect(top_box_, &QSpinBox::valueChanged, this, [this] {
    refreshMap();
    Q_EMIT settingsChanged();
  });
}

void OutlierView::setTensors(const QStringList& available) {
  const QSignalBlocker quiet(tensor_box_);
  tensor_box_->clear();
  for (const QString& tensor : available) tensor_box_->addItem(tensorTitle(tensor), tensor);
  tensor_box_->setCurrentIndex(tensor_box_->findData(tensor_));
}

void OutlierView::setTensor(const QString& tensor) {
  if (tensor == tensor_) return;
  tensor_ = tensor;
  const QSignalBlocker quiet(tensor_box_);
  tensor_box_->setCurrentIndex(tensor_box_->findData(tensor_));
  if (is_kv(tensor)) choose([&](Selection& s) { s.tensor = tensor; });
  Q_EMIT tensorChosen(tensor_);
  Q_EMIT settingsChanged();
}

void OutlierView::setStat(analysis::ChannelStat stat) {
  stat_ = stat;
  stat_box_->setCurrentIndex(static_cast<int>(stat));
  refreshMap();
  refreshRanking();
  Q_EMIT settingsChanged();
}

void OutlierView::setThreshold(double k) {
  k_ = std::clamp(k, 0.01, 1e4);
  refreshRanking();
  Q_EMIT settingsChanged();
}

void OutlierView::setChannels(OutlierSide a, OutlierSide b, qint64 headDim) {
  a_ = std::move(a);
  b_ = std::move(b);
  head_dim_ = headDim;
  refreshMap();
  if (detail_a_ || detail_b_) refreshDetail();
  refreshRanking();
  selectionApplied();
}

void OutlierView::setDetail(int layer, PyramidPtr a, PyramidPtr b) {
  detail_layer_ = layer;
  const HeatmapPanel& before = detail_->panel();
  const bool same_tokens = before.data() && a && before.rows() == a->rows && before.cols() == a->cols;
  if (!same_tokens) detail_->panel().fit();
  detail_a_ = std::move(a);
  detail_b_ = std::move(b);
  refreshDetail();
}

void OutlierView::refreshDetail() {
  HeatmapPanel& panel = detail_->panel();
  panel.title = tr("Channel × token, layer %1, %2").arg(detail_layer_).arg(tensorTitle(tensor_));
  panel.y.label = {};
  panel.x.label = {};
  panel.note.clear();
  const bool heads = is_kv(tensor_) && head_dim_ > 0;
  panel.x.title = heads ? tr("channel (kv head · %1 + d)").arg(head_dim_) : tr("input channel");
  panel.x.brackets = heads && tensor_.startsWith(QLatin1String("key")) ? head_dim_ : 0;
  if (inOrder()) {
    const std::vector<std::int64_t> order = channel_order(overlay_.overlay);
    panel.x.title = tr("original channel, in the order of %1").arg(overlay_.label);
    panel.x.brackets = 0;
    panel.x.label = [order](std::int64_t place) {
      return place < static_cast<std::int64_t>(order.size()) ? QString::number(order[static_cast<std::size_t>(place)])
                                                             : QString();
    };
    setPlanes(detail_, in_order(detail_a_, order), in_order(detail_b_, order));
  } else {
    setPlanes(detail_, detail_a_, detail_b_);
  }
  refreshGroups();
  selectionApplied();
}

void OutlierView::setQuantizer(QuantizerOverlay quantizer) {
  overlay_ = std::move(quantizer);
  if (detail_a_ || detail_b_) refreshDetail();
  refreshRanking();
}

void OutlierView::setQuantizerShown(Quantizer shown) {
  quantizer_ = shown;
  {
    const QSignalBlocker quiet(quantizer_box_);
    quantizer_box_->setCurrentIndex(static_cast<int>(shown));
  }
  if (detail_a_ || detail_b_) refreshDetail();
  refreshRanking();
  Q_EMIT quantizerChosen();
  Q_EMIT settingsChanged();
}

bool OutlierView::overlayFits() const {
  return quantizer_ != Quantizer::None && overlay_.overlay && overlay_.tensor == tensor_;
}

bool OutlierView::inOrder() const {
  return quantizer_ == Quantizer::InItsOrder && overlayFits() && !channel_order(overlay_.overlay).empty() &&
         detail_a_ && detail_a_->exact() &&
         detail_a_->cols == static_cast<std::int64_t>(channel_order(overlay_.overlay).size());
}

qint64 OutlierView::channelAt(qint64 column) const {
  return inOrder() ? channel_order(overlay_.overlay)[static_cast<std::size_t>(column)] : column;
}

qint64 OutlierView::columnOf(qint64 channel) const {
  if (!inOrder()) return channel;
  const auto& order = channel_order(overlay_.overlay);
  return std::find(order.begin(), order.end(), channel) - order.begin();
}

void OutlierView::setDetailPlaceholder(const QString& why) {
  detail_a_.reset();
  detail_b_.reset();
  setPlanes(detail_, nullptr, nullptr);
  detail_->panel().placeholder = why;
  detail_->update();
}

void OutlierView::refreshMap() {
  const QString stat = QLatin1String(analysis::channel_stat_id(stat_));
  HeatmapPanel& panel = map_->panel();
  panel.title = tr("%1 of every channel, %2").arg(stat, tensorTitle(tensor_));
  panel.valueTitle = stat_ == analysis::ChannelStat::Kurtosis || stat_ == analysis::ChannelStat::MaxMedianRatio
                         ? stat
                         : tr("%1, activation units").arg(stat);
  const bool heads = is_kv(tensor_) && head_dim_ > 0;
  panel.x.title = heads ? tr("channel (kv head · %1 + d)").arg(head_dim_) : tr("input channel");
  panel.x.brackets = heads && tensor_.startsWith(QLatin1String("key")) ? head_dim_ : 0;
  panel.x.borders.clear();
  if (heads && !a_.layers.empty())
    for (qint64 c = head_dim_; c < a_.layers.front().channels(); c += head_dim_)
      panel.x.borders.push_back(static_cast<double>(c));
  setPlanes(map_, pyramid_of(analysis::channel_layer_map(a_.layers, stat_)),
            pyramid_of(analysis::channel_layer_map(b_.layers, stat_)));
  const auto jaccard = [&](const OutlierSide& side) -> PyramidPtr {
    if (side.layers.size() < 2) return nullptr;
    std::vector<std::vector<float>> values;
    for (const auto& layer : side.layers) values.push_back(layer.of(stat_));
    return pyramid_of(analysis::persistence(values, top_box_->value()));
  };
  persistence_->panel().title = tr("Overlap of the top %1 channels").arg(top_box_->value());
  persistence_->panel().valueTitle = tr("Jaccard index");
  setPlanes(persistence_, jaccard(a_), jaccard(b_));
}

void OutlierView::refreshRanking() {
  const auto layer = static_cast<std::size_t>(std::max(0, selection().layer));
  const auto rank = [&](const OutlierSide& side) {
    return layer < side.layers.size() ? analysis::rank_channels(side.layers[layer].of(stat_), k_)
                                      : analysis::ChannelRanking{};
  };
  rank_a_ = rank(a_);
  rank_b_ = rank(b_);
  LinePanel& panel = ranked_->panel();
  panel.series.clear();
  const QString stat = QLatin1String(analysis::channel_stat_id(stat_));
  panel.title = tr("Ranked channels, layer %1").arg(selection().layer);
  panel.yTitle = stat;
  const auto add = [&](const OutlierSide& side, const analysis::ChannelRanking& ranking, int color) {
    if (ranking.values.empty()) return;
    LineSeries series;
    series.name = side.label;
    series.y = ranking.values;
    series.color = color;
    series.points = true;
    panel.series.push_back(std::move(series));
  };
  add(a_, rank_a_, 0);
  add(b_, rank_b_, 1);
  const auto& first = rank_a_.order.empty() ? rank_b_ : rank_a_;
  const bool magnitudes = stat_ == analysis::ChannelStat::AbsMax || stat_ == analysis::ChannelStat::P999;
  if (overlayFits() && magnitudes && detail_layer_ == selection().layer &&
      overlay_.reach.largest.size() == first.order.size() && !first.order.empty()) {
    LineSeries range;
    range.name = tr("%1: end of the range, widest and narrowest over tokens").arg(overlay_.label);
    range.color = 2;
    range.dashed = true;
    for (const std::int64_t channel : first.order) {
      const auto c = static_cast<std::size_t>(channel);
      range.y.push_back(overlay_.reach.largest[c]);
      range.lower.push_back(overlay_.reach.least[c]);
      range.upper.push_back(overlay_.reach.largest[c]);
    }
    panel.series.push_back(std::move(range));
  }
  panel.threshold.reset();
  panel.note.clear();
  if (!first.order.empty() && first.median > 0) {
    panel.threshold = first.threshold;
    panel.thresholdLabel = tr("%1 × median").arg(number_text(k_, 3));
    panel.note = rank_a_.order.empty() || rank_b_.order.empty()
                     ? tr("%1 of %2 channels above").arg(first.above).arg(first.order.size())
                     : tr("above: A %1, B %2 of %3").arg(rank_a_.above).arg(rank_b_.above).arg(first.order.size());
  }
  ranked_->update();
  tableOutdated();
}

void OutlierView::refreshGroups() {
  const Grouping& g = kGroupings[std::clamp(group_box_->currentIndex(), 0, 6)];
  HeatmapPanel& panel = detail_->panel();
  panel.x.borders.clear();
  panel.y.borders.clear();
  const bool quantized = overlayFits();
  show_overlay(panel, quantized ? overlay_.overlay : nullptr,
               {.groups = true, .picks = true, .window = true, .evicted = true, .in_order = inOrder()});
  group_box_->setEnabled(!quantized);
  if (quantized) {
    panel.note = overlay_.label;
  } else if (quantizer_ != Quantizer::None) {
    panel.note =
        !overlay_.overlay ? overlay_.why : tr("%1 quantizes %2").arg(overlay_.label, tensorTitle(overlay_.tensor));
  }
  if (quantized && quantizer_ == Quantizer::InItsOrder && !inOrder())
    panel.note = tr("%1 takes the channels as they lie").arg(overlay_.label);
  if (!quantized && g.size > 0) {
    auto& borders = g.tokens ? panel.y.borders : panel.x.borders;
    const auto end = g.tokens ? panel.rows() : panel.cols();
    for (std::int64_t at = g.size; at < end; at += g.size) borders.push_back(static_cast<double>(at));
  }
  detail_->update();
}

void OutlierView::selectionApplied() {
  const Selection& s = selection();
  if (is_kv(tensor_) && s.tensor != tensor_ && tensor_box_->findData(s.tensor) >= 0) {
    tensor_ = s.tensor;
    const QSignalBlocker quiet(tensor_box_);
    tensor_box_->setCurrentIndex(tensor_box_->findData(tensor_));
    Q_EMIT tensorChosen(tensor_);
  }
  map_->panel().selectedRow = s.layer;
  persistence_->panel().selectedRow = s.layer;
  const bool one = s.channelEnd == s.channelBegin + 1 && s.channelBegin >= 0;
  map_->panel().selectedCol = one ? s.channelBegin : -1;
  detail_->panel().selectedCol = one ? columnOf(s.channelBegin) : -1;
  detail_->panel().selectedRow = s.tokenEnd == s.tokenBegin + 1 ? s.tokenBegin : -1;
  const auto brush = [&](const HeatmapPanel& panel, bool tokens) {
    QRectF area;
    // A run of channels is no run of columns in another order.
    const bool channels = s.channelEnd > s.channelBegin + 1 && !(tokens && inOrder()),
               rows = tokens && s.tokenEnd > s.tokenBegin + 1;
    if (!channels && !rows) return area;
    area.setLeft(channels ? s.channelBegin : 0);
    area.setRight(channels ? s.channelEnd : static_cast<double>(panel.cols()));
    area.setTop(rows ? s.tokenBegin : 0);
    area.setBottom(rows ? s.tokenEnd : static_cast<double>(panel.rows()));
    return area;
  };
  map_->panel().brush = brush(map_->panel(), false);
  detail_->panel().brush = brush(detail_->panel(), true);
  refreshRanking();
  map_->update();
  detail_->update();
  persistence_->update();
}

void OutlierView::modeApplied() { ranked_->update(); }

void OutlierView::cellActivated(HeatmapCanvas* canvas, qint64 row, qint64 col) {
  if (canvas == detail_) col = channelAt(col);
  choose([&](Selection& s) {
    if (canvas == map_ || canvas == detail_) {
      s.channelBegin = static_cast<int>(col);
      s.channelEnd = static_cast<int>(col) + 1;
      if (is_kv(tensor_) && head_dim_ > 0) s.kvHead = static_cast<int>(col / head_dim_);
    }
    if (canvas == map_ || canvas == persistence_) s.layer = static_cast<int>(row);
    if (canvas == detail_) {
      s.tokenBegin = static_cast<int>(row);
      s.tokenEnd = static_cast<int>(row) + 1;
    }
  });
}

void OutlierView::cellsBrushed(HeatmapCanvas* canvas, const QRect& cells) {
  if (canvas == persistence_ || (canvas == detail_ && inOrder())) return;
  choose([&](Selection& s) {
    s.channelBegin = cells.left();
    s.channelEnd = cells.left() + cells.width();
    if (canvas == detail_) {
      s.tokenBegin = cells.top();
      s.tokenEnd = cells.top() + cells.height();
    }
  });
}

void OutlierView::brushCleared() {
  choose([](Selection& s) { s.channelBegin = s.channelEnd = s.tokenBegin = s.tokenEnd = -1; });
}

QString OutlierView::channelText(qint64 channel) const {
  if (!is_kv(tensor_) || head_dim_ <= 0) return tr("ch %1").arg(channel);
  return tr("h%1 ch %2 (global %3)").arg(channel / head_dim_).arg(channel % head_dim_).arg(channel);
}

QString OutlierView::describe(const HeatmapCanvas* canvas, Cell cell) const {
  if (canvas == persistence_)
    return tr("top %1 channels of L%2 and L%3 | %4")
        .arg(top_box_->value())
        .arg(cell.row)
        .arg(cell.col)
        .arg(valuesText(canvas, cell));
  if (canvas == map_)
    return tr("L%1 %2 %3 | %4 | %5")
        .arg(cell.row)
        .arg(tensorTitle(tensor_), channelText(cell.col), QLatin1String(analysis::channel_stat_id(stat_)),
             valuesText(canvas, cell));
  const qint64 channel = channelAt(cell.col);
  QString text = tr("L%1 %2 %3 tok %4 '%5' | |x| %6")
                     .arg(detail_layer_)
                     .arg(tensorTitle(tensor_), channelText(channel))
                     .arg(cell.row)
                     .arg(tokens_.value(static_cast<qsizetype>(cell.row)), valuesText(canvas, cell));
  if (!overlayFits() || cell.row >= overlay_.overlay->tokens || channel >= overlay_.overlay->channels()) return text;
  if (inOrder()) text += tr(" | place %1").arg(cell.col);
  const auto [low, high] = overlay_.overlay->range_of(cell.row, channel);
  if (low == low) text += tr(" | range %1 to %2").arg(number_text(low, 4), number_text(high, 4));
  return text;
}

void OutlierView::saveOwn(QJsonObject& settings) const {
  settings[QStringLiteral("tensor")] = tensor_;
  settings[QStringLiteral("stat")] = QLatin1String(analysis::channel_stat_id(stat_));
  settings[QStringLiteral("threshold")] = k_;
  settings[QStringLiteral("groups")] = group_box_->currentIndex();
  settings[QStringLiteral("quantizer")] = QLatin1String(kQuantizers[static_cast<int>(quantizer_)]);
  settings[QStringLiteral("top")] = top_box_->value();
}

void OutlierView::restoreOwn(const QJsonObject& settings) {
  const QString tensor = settings[QStringLiteral("tensor")].toString(tensor_);
  for (int i = 0; i < analysis::kChannelStats; ++i)
    if (settings[QStringLiteral("stat")].toString() ==
        QLatin1String(analysis::channel_stat_id(static_cast<analysis::ChannelStat>(i))))
      stat_ = static_cast<analysis::ChannelStat>(i);
  stat_box_->setCurrentIndex(static_cast<int>(stat_));
  k_ = std::clamp(settings[QStringLiteral("threshold")].toDouble(k_), 0.01, 1e4);
  group_box_->setCurrentIndex(std::clamp(settings[QStringLiteral("groups")].toInt(), 0, 6));
  quantizer_ = Quantizer::None;
  for (int i = 0; i < 3; ++i)
    if (settings[QStringLiteral("quantizer")].toString() == QLatin1String(kQuantizers[i]))
      quantizer_ = static_cast<Quantizer>(i);
  quantizer_box_->setCurrentIndex(static_cast<int>(quantizer_));
  top_box_->setValue(settings[QStringLiteral("top")].toInt(8));
  if (tensor != tensor_) {
    tensor_ = tensor;
    tensor_box_->setCurrentIndex(tensor_box_->findData(tensor_));
  }
  refreshMap();
  if (detail_a_ || detail_b_) refreshDetail();
  refreshRanking();
}

}  // namespace qs
