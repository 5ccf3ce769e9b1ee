#include "widgets/views/locality_view.h"

#include <QComboBox>
#include <QHBoxLayout>
#include <QJsonObject>
#include <QLabel>
#include <QSignalBlocker>
#include <QSlider>
#include <QSplitter>
#include <QToolButton>
#include <QVBoxLayout>
#include <algorithm>
#include <cmath>

#include "widgets/paint/axes.h"

namespace qs {
namespace {

const char* const kSummaries[] = {"within_window", "sink", "entropy"};

}  // namespace

LocalityView::LocalityView(SelectionHub& hub, QWidget* parent)
    : HeatmapView(QStringLiteral("attention"), tr("Attention locality"), hub, parent) {
  buildControls();
  auto* columns = new QSplitter(Qt::Horizontal, body());
  auto* left = new QSplitter(Qt::Vertical, columns);
  auto* right = new QSplitter(Qt::Vertical, columns);
  attention_ = addHeatmap(QStringLiteral("map"), tr("Attention"));
  matrix_ = addHeatmap(QStringLiteral("matrix"), tr("Layer × head"));
  curve_ = addLines(QStringLiteral("curve"), tr("Cumulative mass against distance"));
  strip_ = new TokenStripCanvas(QStringLiteral("tokens"), body());
  addCanvas(strip_);
  left->addWidget(matrix_);
  left->addWidget(curve_);
  right->addWidget(attention_);
  right->addWidget(strip_);
  right->setStretchFactor(0, 4);
  right->setStretchFactor(1, 1);
  right->setSizes({460, 120});
  columns->setStretchFactor(0, 2);
  columns->setStretchFactor(1, 3);
  columns->setSizes({430, 620});
  for (QSplitter* splitter : {columns, left, right}) splitter->setChildrenCollapsible(false);
  auto* layout = new QVBoxLayout(body());
  layout->setContentsMargins(0, 0, 0, 0);
  layout->addWidget(columns);

  matrix_->panel().x.title = tr("query head");
  matrix_->panel().y.title = tr("layer");
  matrix_->panel().cellTexts = true;
  attention_->panel().x.title = tr("key token");
  attention_->panel().y.title = tr("query token");
  attention_->panel().causal = true;
  attention_->panel().valueTitle = tr("attention (log)");
  curve_->panel().logX = true;
  curve_->panel().xTitle = tr("distance, tokens (log2)");
  curve_->panel().yTitle = tr("mass within distance");
  curve_->panel().yLow = 0.0;
  curve_->panel().yHigh = 1.02;
  strip_->panel().title = tr("Tokens");
  strip_->setAccessibleName(tr("Tokens coloured by attention"));
  for (FigurePanel* panel :
       {static_cast<FigurePanel*>(&matrix_->panel()), static_cast<FigurePanel*>(&attention_->panel()),
        static_cast<FigurePanel*>(&curve_->panel()), static_cast<FigurePanel*>(&strip_->panel())})
    panel->placeholder = tr("Nothing to show yet.");
  for (HeatmapCanvas* canvas : {matrix_, attention_})
    canvas->describe = [this, canvas](Cell cell) { return describe(canvas, cell); };
  curve_->describe = [this](qint64 i) {
    const LinePanel& panel = curve_->panel();
    const auto at = static_cast<std::size_t>(i);
    QString text = tr("L%1 head %2 | distance %3")
                       .arg(selection().layer)
                       .arg(selection().queryHead)
                       .arg(number_text(panel.series.front().x[at], 6));
    for (const LineSeries& s : panel.series)
      if (at < s.y.size()) text += tr(" | %1 %2 %").arg(s.name, number_text(100.0 * s.y[at], 4));
    return text;
  };
  connect(strip_, &TokenStripCanvas::tokenChosen, this, [this](qint64 token) {
    choose([&](Selection& s) {
      s.tokenBegin = static_cast<int>(token);
      s.tokenEnd = static_cast<int>(token) + 1;
    });
    Q_EMIT tokenChosen(token);
  });
  analysis::ColorScale scale;
  scale.kind = analysis::ScaleKind::Log10;
  scale.low = 1e-6;
  scale.high = 1.0;
  setOwnScale(attention_, scale);
}

void LocalityView::buildControls() {
  auto* row = controlsLayout();
  const auto add = [&](QWidget* widget, const QString& name, const QString& accessible, const QString& tip) {
    widget->setObjectName(name);
    widget->setAccessibleName(accessible);
    widget->setToolTip(tip);
    row->insertWidget(row->count() - 1, widget);
  };
  summary_box_ = new QComboBox(this);
  summary_box_->addItems({tr("Mass within window"), tr("Sink mass (first 4)"), tr("Entropy")});
  add(summary_box_, QStringLiteral("summary"), tr("Summary of a head"), tr("What the layer by head matrix shows"));
  window_slider_ = new QSlider(Qt::Horizontal, this);
  window_slider_->setRange(0, 15);
  window_slider_->setValue(5);
  window_slider_->setPageStep(1);
  window_slider_->setMinimumWidth(70);
  window_slider_->setMaximumWidth(140);
  add(window_slider_, QStringLiteral("window"), tr("Window width"),
      tr("Width of the window of newest tokens, in powers of two"));
  window_text_ = new QLabel(this);
  window_text_->setMinimumWidth(window_text_->fontMetrics().horizontalAdvance(tr("w = %1").arg(32768)));
  add(window_text_, QStringLiteral("windowText"), tr("Window width"), tr("Width of the window of newest tokens"));
  apply_button_ = new QToolButton(this);
  apply_button_->setText(tr("Apply to B"));
  add(apply_button_, QStringLiteral("applyWindow"), tr("Apply the window to a copy of B"), QString());
  mean_button_ = new QToolButton(this);
  mean_button_->setText(tr("Mean"));
  mean_button_->setCheckable(true);
  add(mean_button_, QStringLiteral("mean"), tr("Pool by mean"),
      tr("Pools cells by their mean instead of their maximum: the mean hides sinks, the maximum overstates them"));
  received_button_ = new QToolButton(this);
  received_button_->setText(tr("Received"));
  received_button_->setCheckable(true);
  add(received_button_, QStringLiteral("received"), tr("Attention received"),
      tr("Colours the tokens by the attention they pay to the chosen token instead of what it pays to them"));
  connect(summary_box_, &QComboBox::activated, this, [this](int i) { setSummary(static_cast<Summary>(i)); });
  connect(window_slider_, &QSlider::valueChanged, this, [this](int v) { setWindow(qint64{1} << v); });
  connect(apply_button_, &QToolButton::clicked, this, [this] { Q_EMIT windowApplied(window_); });
  connect(mean_button_, &QToolButton::toggled, this, [this](bool on) {
    mean_ = on;
    refreshAttention();
    Q_EMIT settingsChanged();
  });
  connect(received_button_, &QToolButton::toggled, this, [this](bool on) {
    received_ = on;
    refreshStrip();
    Q_EMIT settingsChanged();
  });
  refreshWindow();
}

void LocalityView::refreshWindow() {
  window_text_->setText(tr("w = %1").arg(window_));
  apply_button_->setEnabled(!protected_.parameter.isEmpty());
  apply_button_->setToolTip(protected_.label.isEmpty() ? tr("Choose a variant with a quantized KV cache as B first")
                            : protected_.parameter.isEmpty()
                                ? tr("%1 has no number of newest tokens to change").arg(protected_.label)
                                : tr("Adds a copy of %1 whose '%2' is %3, and chooses it as B")
                                      .arg(protected_.label, protected_.parameter)
                                      .arg(window_));
}

qint64 LocalityView::longest() const {
  for (const LocalitySide* side : {&a_, &b_})
    if (!side->layers.empty() && !side->layers.front().empty())
      return static_cast<qint64>(side->layers.front().front().mass_by_distance.size());
  return 0;
}

void LocalityView::setWindow(qint64 tokens) {
  window_ = std::max<qint64>(1, tokens);
  {
    const QSignalBlocker quiet(window_slider_);
    window_slider_->setValue(static_cast<int>(std::lround(std::log2(static_cast<double>(window_)))));
  }
  refreshWindow();
  refreshMatrix();
  refreshCurve();
  Q_EMIT settingsChanged();
}

void LocalityView::setSummary(Summary summary) {
  summary_ = summary;
  summary_box_->setCurrentIndex(static_cast<int>(summary));
  refreshMatrix();
  Q_EMIT settingsChanged();
}

void LocalityView::setLocality(LocalitySide a, LocalitySide b, qint64 queriesPerKvHead) {
  a_ = std::move(a);
  b_ = std::move(b);
  per_kv_head_ = std::max<qint64>(1, queriesPerKvHead);
  refreshMatrix();
  refreshCurve();
}

void LocalityView::refreshMatrix() {
  const auto plane = [&](const LocalitySide& side) -> PyramidPtr {
    if (side.layers.empty() || side.layers.front().empty()) return nullptr;
    const std::size_t heads = side.layers.front().size();
    std::vector<float> values(side.layers.size() * heads, std::numeric_limits<float>::quiet_NaN());
    for (std::size_t l = 0; l < side.layers.size(); ++l)
      for (std::size_t h = 0; h < std::min(heads, side.layers[l].size()); ++h) {
        const auto& head = side.layers[l][h];
        values[l * heads + h] = static_cast<float>(summary_ == Summary::WithinWindow ? 100.0 * head.mass_within(window_)
                                                   : summary_ == Summary::Sink       ? 100.0 * head.sink_mass
                                                                                     : head.entropy_nats);
      }
    return std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(TensorView::own(
        std::move(values), {static_cast<std::int64_t>(side.layers.size()), static_cast<std::int64_t>(heads)})));
  };
  HeatmapPanel& panel = matrix_->panel();
  panel.title = summary_ == Summary::WithinWindow ? tr("Mass within %1 tokens").arg(window_)
                : summary_ == Summary::Sink       ? tr("Mass on the first 4 tokens")
                                                  : tr("Entropy of attention");
  panel.valueTitle = summary_ == Summary::Entropy ? tr("nats") : tr("% of the mass");
  panel.x.borders.clear();
  if (!a_.layers.empty() && per_kv_head_ > 1)
    for (std::size_t h = static_cast<std::size_t>(per_kv_head_); h < a_.layers.front().size();
         h += static_cast<std::size_t>(per_kv_head_))
      panel.x.borders.push_back(static_cast<double>(h));
  setPlanes(matrix_, plane(a_), plane(b_));
}

void LocalityView::refreshCurve() {
  LinePanel& panel = curve_->panel();
  const auto layer = static_cast<std::size_t>(std::max(0, selection().layer)),
             head = static_cast<std::size_t>(std::max(0, selection().queryHead));
  panel.title = tr("Mass against distance, L%1 head %2").arg(layer).arg(head);
  panel.series.clear();
  panel.marks.clear();
  panel.caption.clear();
  const analysis::HeadLocality* first = nullptr;
  const auto add = [&](const LocalitySide& side, int color) {
    if (layer >= side.layers.size() || head >= side.layers[layer].size()) return;
    const auto& h = side.layers[layer][head];
    if (!first) first = &h;
    LineSeries series;
    series.name = side.label;
    for (const std::int64_t d : h.distance) series.x.push_back(d == 0 ? 0.5 : static_cast<double>(d));
    series.y = h.mean;
    series.lower = h.lower;
    series.upper = h.upper;
    series.color = color;
    series.points = true;
    panel.series.push_back(std::move(series));
  };
  add(a_, 0);
  add(b_, 1);
  if (first) {
    panel.marks.push_back({static_cast<double>(window_), tr("w = %1").arg(window_)});
    const QString newest = protected_.newestLeast == protected_.newestMost
                               ? QString::number(protected_.newestMost)
                               : tr("%1 to %2").arg(protected_.newestLeast).arg(protected_.newestMost);
    if (protected_.newestMost > 0)
      panel.marks.push_back({static_cast<double>(protected_.newestMost),
                             protected_.sinks > 0
                                 ? tr("protected: first %1, newest %2").arg(protected_.sinks).arg(newest)
                                 : tr("protected: newest %1").arg(newest)});
    if (protected_.newestLeast > 0 && protected_.newestLeast != protected_.newestMost)
      panel.marks.push_back({static_cast<double>(protected_.newestLeast), QString()});
    panel.caption = first->quantized_mass.empty()
                        ? tr("Mass outside %1 tokens: %2 %")
                              .arg(window_)
                              .arg(number_text(std::max(0.0, 100.0 * (1.0 - first->mass_within(window_))), 3))
                        : protectedText(a_.layers[layer], *first);
    panel.note = tr("mean and quartiles of %1 queries").arg(first->queries);
  }
  curve_->update();
  tableOutdated();
}

QString LocalityView::protectedText(const std::vector<analysis::HeadLocality>& heads,
                                    const analysis::HeadLocality& head) const {
  // The mean over the heads of the layer; keys and values are told apart where they differ.
  const auto mean = [&](std::size_t role) {
    double sum = 0.0;
    for (const analysis::HeadLocality& other : heads) sum += other.quantized_mass[role];
    return number_text(100.0 * sum / static_cast<double>(heads.size()), 3);
  };
  double least = 1.0, most = 0.0;
  for (const analysis::HeadLocality& other : heads)
    for (const double mass : other.quantized_mass) {
      least = std::min(least, mass);
      most = std::max(most, mass);
    }
  const bool both = head.quantized_mass.size() > 1 && mean(0) != mean(1);
  return tr("Mass outside the protected window: %1 (heads %2 to %3 %)")
      .arg(both ? tr("keys %1 %, values %2 %").arg(mean(0), mean(1)) : tr("%1 %").arg(mean(0)),
           number_text(100.0 * least, 3), number_text(100.0 * most, 3));
}

void LocalityView::setProtected(const ProtectedTokens& protectedTokens) {
  protected_ = protectedTokens;
  refreshWindow();
  refreshCurve();
}

void LocalityView::setAttention(int layer, int head, AttentionSide a, AttentionSide b) {
  layer_ = layer;
  head_ = head;
  attention_a_ = std::move(a);
  attention_b_ = std::move(b);
  refreshAttention();
  selectionApplied();
}

void LocalityView::refreshAttention() {
  HeatmapPanel& panel = attention_->panel();
  panel.pool = mean_ ? PixelPool::Mean : PixelPool::Max;
  setPlanes(attention_, mean_ ? attention_a_.mean : attention_a_.max, mean_ ? attention_b_.mean : attention_b_.max);
  modeApplied();
}

void LocalityView::modeApplied() {
  if (!attention_) return;
  HeatmapPanel& panel = attention_->panel();
  panel.title = tr("Attention %1, layer %2, head %3").arg(modeText()).arg(layer_).arg(head_);
  QStringList notes;
  if (attention_b_.outputError >= 0)
    notes << tr("output error %1 %").arg(number_text(100.0 * attention_b_.outputError, 3));
  panel.note = notes.join(QStringLiteral(" · "));
  if (modeText() == QLatin1String("A") || modeText() == QLatin1String("B")) {
    analysis::ColorScale scale;
    scale.kind = analysis::ScaleKind::Log10;
    scale.low = 1e-6;
    scale.high = 1.0;
    setOwnScale(attention_, scale);
    panel.valueTitle = tr("attention (log)");
    panel.pool = mean_ ? PixelPool::Mean : PixelPool::Max;
  } else {
    panel.valueTitle = modeText() == QLatin1String("A / B") ? tr("attention A / B") : tr("change of attention, A − B");
  }
  attention_->update();
  refreshStrip();
}

void LocalityView::setTokens(const QStringList& tokens) {
  tokens_ = tokens;
  strip_->panel().tokens = tokens;
  strip_->update();
}

void LocalityView::setTokenAttention(qint64 token, analysis::TokenAttention a, analysis::TokenAttention b) {
  token_ = token;
  token_a_ = std::move(a);
  token_b_ = std::move(b);
  refreshStrip();
}

void LocalityView::refreshStrip() {
  TokenStripPanel& panel = strip_->panel();
  const analysis::TokenAttention& shown =
      modeText() == QLatin1String("B") && !token_b_.given.empty() ? token_b_ : token_a_;
  panel.values = received_ ? shown.received : shown.given;
  panel.scale.kind = analysis::ScaleKind::Log10;
  panel.scale.low = 1e-4;
  panel.scale.high = 1.0;
  panel.selected = token_;
  panel.title = token_ < 0  ? tr("Tokens: choose one")
                : received_ ? tr("Attention paid to token %1").arg(token_)
                            : tr("Attention paid by token %1").arg(token_);
  panel.note = token_ < 0 ? QString() : tr("log colour, 1e-4 to 1");
  strip_->update();
  tableOutdated();
}

void LocalityView::selectionApplied() {
  const Selection& s = selection();
  matrix_->panel().selectedRow = s.layer;
  matrix_->panel().selectedCol = s.queryHead;
  HeatmapPanel& panel = attention_->panel();
  panel.selectedRow = s.tokenBegin >= 0 && s.tokenEnd == s.tokenBegin + 1 ? s.tokenBegin : -1;
  const bool range = s.tokenEnd > s.tokenBegin + 1;
  panel.brush =
      range ? QRectF(s.tokenBegin, 0, s.tokenEnd - s.tokenBegin, static_cast<double>(panel.rows())) : QRectF();
  refreshCurve();
  matrix_->update();
  attention_->update();
}

void LocalityView::cellActivated(HeatmapCanvas* canvas, qint64 row, qint64 col) {
  choose([&](Selection& s) {
    if (canvas == matrix_) {
      s.layer = static_cast<int>(row);
      s.queryHead = static_cast<int>(col);
      s.kvHead = static_cast<int>(col / per_kv_head_);
    } else {
      s.tokenBegin = static_cast<int>(row);
      s.tokenEnd = s.tokenBegin + 1;
    }
  });
}

void LocalityView::cellsBrushed(HeatmapCanvas* canvas, const QRect& cells) {
  if (canvas != attention_) return;
  choose([&](Selection& s) {
    s.tokenBegin = cells.left();
    s.tokenEnd = cells.left() + cells.width();
  });
}

void LocalityView::brushCleared() {
  choose([](Selection& s) { s.tokenBegin = s.tokenEnd = -1; });
}

QString LocalityView::describe(const HeatmapCanvas* canvas, Cell cell) const {
  if (canvas == matrix_)
    return tr("L%1 head %2 (KV head %3) | %4 | %5")
        .arg(cell.row)
        .arg(cell.col)
        .arg(cell.col / per_kv_head_)
        .arg(matrix_->panel().title, valuesText(canvas, cell));
  const auto name = [&](std::int64_t i) { return tr("%1 '%2'").arg(i).arg(tokens_.value(static_cast<qsizetype>(i))); };
  if (cell.col > cell.row)
    return tr("L%1 head %2 query %3 does not see key %4").arg(layer_).arg(head_).arg(name(cell.row), name(cell.col));
  return tr("L%1 head %2 query %3 key %4 | %5")
      .arg(layer_)
      .arg(head_)
      .arg(name(cell.row), name(cell.col), valuesText(canvas, cell));
}

FigureTable::Content LocalityView::tableOf(PanelCanvas* canvas) {
  if (canvas != strip_) return {};
  FigureTable::Content content;
  content.rows = static_cast<int>(tokens_.size());
  content.columns = 4;
  content.header = [](int c) {
    return QStringList{tr("token"), tr("text"), tr("attention given, A"), tr("attention received, A")}.value(c);
  };
  content.cell = [tokens = tokens_, a = token_a_](int r, int c) -> QVariant {
    const auto i = static_cast<std::size_t>(r);
    if (c == 0) return r;
    if (c == 1) return tokens.value(r);
    const auto& values = c == 2 ? a.given : a.received;
    return i < values.size() ? QVariant(values[i]) : QVariant();
  };
  return content;
}

void LocalityView::saveOwn(QJsonObject& settings) const {
  settings[QStringLiteral("summary")] = QLatin1String(kSummaries[static_cast<int>(summary_)]);
  settings[QStringLiteral("window")] = window_;
  settings[QStringLiteral("mean")] = mean_;
  settings[QStringLiteral("received")] = received_;
}

void LocalityView::restoreOwn(const QJsonObject& settings) {
  for (int i = 0; i < 3; ++i)
    if (settings[QStringLiteral("summary")].toString() == QLatin1String(kSummaries[i]))
      summary_ = static_cast<Summary>(i);
  summary_box_->setCurrentIndex(static_cast<int>(summary_));
  setWindow(settings[QStringLiteral("window")].toInteger(32));
  mean_button_->setChecked(settings[QStringLiteral("mean")].toBool());
  received_button_->setChecked(settings[QStringLiteral("received")].toBool());
  refreshMatrix();
}

}  // namespace qs
