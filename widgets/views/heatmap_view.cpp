#include "widgets/views/heatmap_view.h"

#include <QButtonGroup>
#include <QComboBox>
#include <QHBoxLayout>
#include <QJsonArray>
#include <QPainter>
#include <QSignalBlocker>
#include <QToolButton>
#include <algorithm>
#include <cmath>

#include "widgets/paint/axes.h"

namespace qs {
namespace {

constexpr double kNarrow = 420.0;  ///< a figure narrower than this shows one plot only

const char* const kKinds[] = {"linear", "log10", "symlog"};
const char* const kRanges[] = {"full", "percentile", "manual"};

int index_of(const char* const (&names)[3], const QString& name) {
  for (int i = 0; i < 3; ++i)
    if (name == QLatin1String(names[i])) return i;
  return 0;
}

}  // namespace

HeatmapView::HeatmapView(QString viewId, QString title, SelectionHub& hub, QWidget* parent)
    : ViewBase(std::move(viewId), std::move(title), hub, parent), selection_(hub.selection()) {
  buildStrip();
  blink_timer_.setInterval(600);
  table_timer_.setSingleShot(true);
  table_timer_.setInterval(150);
  connect(&table_timer_, &QTimer::timeout, this, [this] { refillTable(); });
  connect(&blink_timer_, &QTimer::timeout, this, [this] {
    blink_shows_b_ = !blink_shows_b_;
    applyModeToAll();
  });
}

void HeatmapView::buildStrip() {
  QBoxLayout* row = controlsLayout();
  mode_buttons_ = new QButtonGroup(this);
  const struct {
    QString text, name, tip;
  } modes[] = {{QStringLiteral("A"), tr("Show A"), tr("Show A (1)")},
               {QStringLiteral("B"), tr("Show B"), tr("Show B (2)")},
               {QStringLiteral("A−B"), tr("Show the difference A minus B"), tr("Difference, exact per cell (3)")},
               {QStringLiteral("A/B"), tr("Show the ratio A over B"), tr("Ratio, exact per cell (4)")}};
  auto* group = new QHBoxLayout;
  group->setSpacing(0);
  for (int i = 0; i < 4; ++i) {
    auto* button = new QToolButton(this);
    button->setObjectName(QStringLiteral("compare%1").arg(i));
    button->setText(modes[i].text);
    button->setAccessibleName(modes[i].name);
    button->setToolTip(modes[i].tip);
    button->setCheckable(true);
    mode_buttons_->addButton(button, i);
    group->addWidget(button);
  }
  blink_button_ = new QToolButton(this);
  blink_button_->setObjectName(QStringLiteral("blink"));
  blink_button_->setText(tr("Blink"));
  blink_button_->setAccessibleName(tr("Blink between A and B"));
  blink_button_->setToolTip(tr("Shows A and B in turn on one scale (B)"));
  blink_button_->setCheckable(true);
  group->addWidget(blink_button_);
  row->addLayout(group);
  connect(mode_buttons_, &QButtonGroup::idClicked, this, [this](int id) { setCompareMode(id); });
  connect(blink_button_, &QToolButton::toggled, this, &HeatmapView::setBlink);

  const auto combo = [&](const QString& name, const QString& accessible, const QString& tip, const QStringList& texts) {
    auto* box = new QComboBox(this);
    box->setObjectName(name);
    box->setAccessibleName(accessible);
    box->setToolTip(tip);
    box->addItems(texts);
    row->addWidget(box);
    return box;
  };
  kind_box_ =
      combo(QStringLiteral("scaleKind"), tr("Colour scale"),
            tr("Colour scale: linear, logarithmic or linear around zero (L)"), {tr("Linear"), tr("Log"), tr("Symlog")});
  range_box_ = combo(QStringLiteral("scaleRange"), tr("Colour range"),
                     tr("Colour range: everything, or without the outermost 0.1 % at each end; drag the colour bar for "
                        "a range of your own"),
                     {tr("Full range"), tr("0.1–99.9 %"), tr("Manual")});
  map_box_ = combo(QStringLiteral("colorMap"), tr("Colour map"),
                   tr("Colour map of unsigned values; signed ones are blue, white, orange"),
                   {tr("Viridis"), tr("Cividis"), tr("Grey")});
  const auto toggle = [&](const QString& name, const QString& text, const QString& accessible, const QString& tip) {
    auto* button = new QToolButton(this);
    button->setObjectName(name);
    button->setText(text);
    button->setAccessibleName(accessible);
    button->setToolTip(tip);
    button->setCheckable(true);
    row->addWidget(button);
    return button;
  };
  link_scale_button_ = toggle(QStringLiteral("linkScale"), tr("A=B"), tr("One colour scale for A and B"),
                              tr("A and B share one colour scale, so that equal colours are equal values"));
  lock_button_ = toggle(QStringLiteral("lockScale"), tr("Lock"), tr("Lock the colour scale"),
                        tr("Keeps the colour range when layer or data change (Ctrl+L)"));
  row->addStretch(1);
  connect(kind_box_, &QComboBox::activated, this, [this](int i) { setScaleKind(static_cast<analysis::ScaleKind>(i)); });
  connect(range_box_, &QComboBox::activated, this,
          [this](int i) { setRangeMode(static_cast<analysis::RangeMode>(i)); });
  connect(map_box_, &QComboBox::activated, this, [this](int i) { setColorMap(static_cast<MapName>(i)); });
  connect(link_scale_button_, &QToolButton::toggled, this, &HeatmapView::setScaleLinked);
  connect(lock_button_, &QToolButton::toggled, this, &HeatmapView::setScaleLocked);
  updateStrip();
}

void HeatmapView::updateStrip() {
  const QSignalBlocker a(kind_box_), b(range_box_), c(map_box_), d(blink_button_), e(lock_button_),
      f(link_scale_button_);
  if (auto* button = mode_buttons_->button(mode_)) button->setChecked(true);
  blink_button_->setChecked(blink_);
  kind_box_->setCurrentIndex(static_cast<int>(kind_));
  range_box_->setCurrentIndex(static_cast<int>(range_));
  map_box_->setCurrentIndex(static_cast<int>(map_));
  lock_button_->setChecked(locked_scale_);
  link_scale_button_->setChecked(linked_scale_);
  for (QAbstractButton* button : mode_buttons_->buttons()) {
    QFont font = button->font();
    font.setBold(button->isChecked() && !blink_);
    font.setUnderline(font.bold());
    button->setFont(font);
  }
}

void HeatmapView::addCanvas(PanelCanvas* canvas) {
  canvases_ << canvas;
  if (!primary_) primary_ = canvas;
  connect(canvas, &PanelCanvas::readout, this, &ViewBase::readoutChanged);
  connect(canvas, &PanelCanvas::viewportChanged, this, [this] {
    tableOutdated();
    Q_EMIT settingsChanged();
  });
  connect(canvas, &PanelCanvas::maximizeRequested, this, [this, canvas] { toggleMaximized(canvas); });
  connect(canvas, &PanelCanvas::focused, this, [this, canvas] {
    if (primary_ == canvas) return;
    primary_ = canvas;
    tableOutdated();
  });
  connect(canvas, &PanelCanvas::modeKey, this, [this](int key) { key == 4 ? setBlink(!blink_) : setCompareMode(key); });
  connect(canvas, &PanelCanvas::logKey, this, [this] { setLogScale(kind_ == analysis::ScaleKind::Linear); });
  connect(canvas, &PanelCanvas::clearRequested, this, [this] { brushCleared(); });
}

HeatmapCanvas* HeatmapView::addHeatmap(const QString& id, const QString& title) {
  auto* canvas = new HeatmapCanvas(id, body());
  canvas->panel().title = title;
  canvas->setAccessibleName(title);
  connect(canvas, &HeatmapCanvas::activated, this,
          [this, canvas](qint64 row, qint64 col) { cellActivated(canvas, row, col); });
  connect(canvas, &HeatmapCanvas::brushed, this, [this, canvas](const QRect& cells) { cellsBrushed(canvas, cells); });
  connect(canvas, &HeatmapCanvas::tileWanted, this,
          [this, canvas](const QRect& cells) { Q_EMIT tileWanted(canvas->objectName(), cells); });
  connect(canvas, &HeatmapCanvas::pinned, this, [this, canvas](qint64 row, qint64 col) { addPin(canvas, row, col); });
  connect(canvas, &HeatmapCanvas::rangeDragged, this, [this, canvas](double low, double high) {
    Planes& planes = planes_[canvas];
    if (planes.fixed) return;
    canvas->panel().scale.low = low;
    canvas->panel().scale.high = high;
    planes.manual = true;
    planes.manual_scale = canvas->panel().scale;
    range_ = analysis::RangeMode::Manual;
    updateStrip();
    canvas->update();
    Q_EMIT settingsChanged();
  });
  planes_.insert(canvas, {});
  addCanvas(canvas);
  return canvas;
}

LineCanvas* HeatmapView::addLines(const QString& id, const QString& title) {
  auto* canvas = new LineCanvas(id, body());
  canvas->panel().title = title;
  canvas->setAccessibleName(title);
  addCanvas(canvas);
  return canvas;
}

HeatmapCanvas* HeatmapView::heatmap(const QString& id) const { return findChild<HeatmapCanvas*>(id); }
LineCanvas* HeatmapView::lines(const QString& id) const { return findChild<LineCanvas*>(id); }
PyramidPtr HeatmapView::planeA(const HeatmapCanvas* canvas) const { return planes_.value(canvas).a; }
PyramidPtr HeatmapView::planeB(const HeatmapCanvas* canvas) const { return planes_.value(canvas).b; }

void HeatmapView::setPlanes(HeatmapCanvas* canvas, PyramidPtr a, PyramidPtr b, bool is_signed) {
  Planes& planes = planes_[canvas];
  planes.a = std::move(a);
  planes.b = std::move(b);
  planes.difference.reset();
  planes.ratio.reset();
  planes.tile_a.reset();
  planes.tile_b.reset();
  planes.is_signed = is_signed;
  applyMode(canvas);
  tableOutdated();
}

void HeatmapView::setOwnScale(HeatmapCanvas* canvas, const analysis::ColorScale& scale) {
  planes_[canvas].fixed = true;
  canvas->panel().scale = scale;
}

void HeatmapView::applyMode(HeatmapCanvas* canvas) {
  Planes& planes = planes_[canvas];
  HeatmapPanel& panel = canvas->panel();
  const int mode = shownMode();
  PyramidPtr shown = mode == B ? planes.b : planes.a;
  const bool comparable = planes.a && planes.b && planes.a->rows == planes.b->rows && planes.a->cols == planes.b->cols;
  if (mode >= Difference) {
    shown.reset();
    if (comparable) {
      PyramidPtr& joined = mode == Difference ? planes.difference : planes.ratio;
      if (!joined)
        joined = std::make_shared<analysis::TilePyramid>(analysis::combine(
            *planes.a, *planes.b, mode == Difference ? analysis::Combine::Difference : analysis::Combine::Ratio));
      shown = joined;
    }
  }
  const bool had_scale = !panel.isEmpty();
  const bool was_signed = panel.scale.is_signed;
  panel.setData(shown);
  applyTile(canvas);
  if (!shown) {
    panel.placeholder =
        mode >= Difference
            ? (planes.a && planes.b ? tr("A and B have different shapes and cannot be compared cell by cell.")
                                    : tr("Choose both A and B to compare them."))
            : tr("Nothing to show for %1.").arg(mode == B ? QStringLiteral("B") : QStringLiteral("A"));
    canvas->update();
    return;
  }
  const bool is_signed = mode == Difference || (planes.is_signed && mode != Ratio);
  panel.map = is_signed ? MapName::Diverging : map_;
  if (mode == Ratio) panel.pool = PixelPool::Mean;
  if (planes.fixed && mode < Difference) {
    canvas->update();
    return;
  }
  const bool keep = locked_scale_ && had_scale && was_signed == is_signed;
  if (range_ == analysis::RangeMode::Manual && planes.manual && planes.manual_scale.is_signed == is_signed &&
      mode < Difference) {
    panel.scale = planes.manual_scale;
  } else if (!keep) {
    const auto range = range_ == analysis::RangeMode::Manual ? analysis::RangeMode::Full : range_;
    panel.scale = analysis::fit_scale(panel.plane(), kind_, range, is_signed);
    if (linked_scale_ && mode < Difference && planes.a && planes.b) {
      const PyramidPtr& other = mode == A ? planes.b : planes.a;
      panel.scale =
          analysis::united(panel.scale, analysis::fit_scale(analysis::summarize(*other), kind_, range, is_signed));
    }
  }
  canvas->update();
}

void HeatmapView::setTiles(HeatmapCanvas* canvas, TilePtr a, TilePtr b) {
  Planes& planes = planes_[canvas];
  planes.tile_a = std::move(a);
  planes.tile_b = std::move(b);
  applyTile(canvas);
  tableOutdated();
}

void HeatmapView::applyTile(HeatmapCanvas* canvas) {
  const Planes& planes = planes_[canvas];
  const TilePtr &a = planes.tile_a, &b = planes.tile_b;
  const int mode = shownMode();
  TilePtr shown = mode == B ? b : a;
  if (mode >= Difference) {
    shown.reset();
    if (a && b && a->row == b->row && a->col == b->col && a->plane.rows == b->plane.rows &&
        a->plane.cols == b->plane.cols) {
      const auto operation = mode == Difference ? analysis::Combine::Difference : analysis::Combine::Ratio;
      shown = std::make_shared<analysis::ExactTile>(
          analysis::ExactTile{a->row, a->col, analysis::combine(a->plane, b->plane, operation, 1 << 25)});
    }
  }
  canvas->panel().setTile(std::move(shown));
  canvas->askForTile();
  canvas->update();
}

void HeatmapView::applyModeToAll() {
  for (PanelCanvas* canvas : canvases_)
    if (auto* heatmap = qobject_cast<HeatmapCanvas*>(canvas)) applyMode(heatmap);
  modeApplied();
  tableOutdated();
  update();
}

QString HeatmapView::modeText() const {
  return QStringList{QStringLiteral("A"), QStringLiteral("B"), QStringLiteral("A − B"), QStringLiteral("A / B")}.value(
      shownMode());
}

QString HeatmapView::valuesText(const HeatmapCanvas* canvas, Cell cell) const {
  const Planes planes = planes_.value(canvas);
  QStringList parts;
  float known[2] = {};
  bool exact = true;
  const auto add = [&](const QString& name, const PyramidPtr& plane, const TilePtr& tile, float& value) {
    if (!plane || plane->levels.empty()) return;
    const auto row = static_cast<double>(cell.row), col = static_cast<double>(cell.col);
    const bool inside = tile && tile->covers(col, row, col + 1, row + 1);
    if (!plane->exact() && !inside && cell.row < plane->rows && cell.col < plane->cols) {
      const analysis::PyramidLevel& level = plane->levels.front();
      exact = false;
      parts << tr("%1 %2 (pooled %3×%3)")
                   .arg(name,
                        number_text(
                            level.max.data[cell.row / level.factor * level.max.shape[1] + cell.col / level.factor], 4))
                   .arg(level.factor);
      return;
    }
    value = inside ? tile->at(cell.row, cell.col) : plane->at(cell.row, cell.col);
    parts << QStringLiteral("%1 %2").arg(name, number_text(value, 6));
  };
  add(QStringLiteral("A"), planes.a, planes.tile_a, known[0]);
  add(QStringLiteral("B"), planes.b, planes.tile_b, known[1]);
  if (planes.a && planes.b && exact)
    parts << QStringLiteral("A−B %1").arg(number_text(static_cast<double>(known[0]) - known[1], 4));
  return parts.join(QStringLiteral(" | "));
}

void HeatmapView::setCompareMode(int mode) {
  mode = std::clamp(mode, 0, 3);
  if (mode == mode_ && !blink_) return updateStrip();
  mode_ = mode;
  if (blink_) {
    blink_ = false;
    blink_timer_.stop();
  }
  updateStrip();
  applyModeToAll();
  Q_EMIT compareModeChanged(mode_);
  Q_EMIT settingsChanged();
}

void HeatmapView::setBlink(bool on) {
  if (on == blink_) return;
  blink_ = on;
  blink_shows_b_ = false;
  on ? blink_timer_.start() : blink_timer_.stop();
  updateStrip();
  applyModeToAll();
  Q_EMIT settingsChanged();
}

void HeatmapView::setScaleKind(analysis::ScaleKind kind) {
  if (kind == kind_) return;
  kind_ = kind;
  for (Planes& planes : planes_) planes.manual = false;
  if (range_ == analysis::RangeMode::Manual) range_ = analysis::RangeMode::Full;
  const bool locked = std::exchange(locked_scale_, false);
  updateStrip();
  applyModeToAll();
  locked_scale_ = locked;
  updateStrip();
  Q_EMIT settingsChanged();
}

void HeatmapView::setLogScale(bool on) { setScaleKind(on ? analysis::ScaleKind::Log10 : analysis::ScaleKind::Linear); }

void HeatmapView::setRangeMode(analysis::RangeMode mode) {
  if (mode == analysis::RangeMode::Manual)
    for (auto it = planes_.begin(); it != planes_.end(); ++it) {
      it->manual = true;
      it->manual_scale = static_cast<const HeatmapCanvas*>(it.key())->panel().isEmpty()
                             ? it->manual_scale
                             : const_cast<HeatmapCanvas*>(static_cast<const HeatmapCanvas*>(it.key()))->panel().scale;
    }
  range_ = mode;
  updateStrip();
  applyModeToAll();
  Q_EMIT settingsChanged();
}

void HeatmapView::setColorMap(MapName map) {
  map_ = map == MapName::Diverging ? MapName::Viridis : map;
  updateStrip();
  applyModeToAll();
  Q_EMIT settingsChanged();
}

void HeatmapView::setScaleLocked(bool locked) {
  locked_scale_ = locked;
  updateStrip();
  if (!locked) applyModeToAll();
  Q_EMIT settingsChanged();
}

void HeatmapView::setScaleLinked(bool linked) {
  linked_scale_ = linked;
  updateStrip();
  applyModeToAll();
  Q_EMIT settingsChanged();
}

void HeatmapView::toggleMaximized(PanelCanvas* canvas) {
  maximized_ = maximized_ == canvas ? nullptr : canvas;
  for (PanelCanvas* other : canvases_) other->setVisible(!maximized_ || other == maximized_);
  canvas->setFocus();
}

void HeatmapView::addPin(HeatmapCanvas* canvas, qint64 row, qint64 col) {
  const QString value = canvas->describe ? canvas->describe({row, col}) : QString();
  int number = 1;
  for (PanelCanvas* other : canvases_)
    if (auto* heatmap = qobject_cast<HeatmapCanvas*>(other)) number += static_cast<int>(heatmap->panel().pins.size());
  canvas->panel().pins.push_back({number, row, col, value});
  canvas->update();
  Q_EMIT pinRequested(viewId(), value);
  Q_EMIT settingsChanged();
}

void HeatmapView::selectionChanged() {
  selection_ = hub().selection();
  selectionApplied();
  Q_EMIT selectionMoved();
}

void HeatmapView::tableOutdated() {
  table_outdated_ = true;
  if (table_asked_ && !table_timer_.isActive()) table_timer_.start();
}

void HeatmapView::refillTable() {
  table_outdated_ = false;
  FigureTable::Content content;
  if (auto* heatmap = qobject_cast<HeatmapCanvas*>(primary_)) {
    content = heatmap_table(heatmap->panel());
  } else if (auto* line = qobject_cast<LineCanvas*>(primary_)) {
    content = line_table(line->panel());
  } else if (primary_) {
    content = tableOf(primary_);
  }
  table_.setContent(std::move(content));
}

QAbstractTableModel* HeatmapView::dataTable() {
  table_asked_ = true;
  if (table_outdated_) refillTable();
  return &table_;
}

QString HeatmapView::accessibleSummary() const {
  QStringList parts;
  for (const PanelCanvas* canvas : canvases_)
    if (!canvas->panel().isEmpty()) parts << canvas->panel().summary();
  return parts.isEmpty() ? tr("Nothing to show yet") : parts.join(QStringLiteral(". "));
}

void HeatmapView::fitView() {
  for (PanelCanvas* canvas : canvases_) canvas->fit();
}

void HeatmapView::zoomBy(double factor) {
  if (primary_) primary_->zoomBy(factor);
}

void HeatmapView::paintFigure(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  const QRectF whole = body()->rect();
  const auto cursorless = [&](PanelCanvas* canvas, const QRectF& at) {
    painter.save();
    painter.fillRect(at, style.background);
    auto* heatmap = qobject_cast<HeatmapCanvas*>(canvas);
    std::optional<Cell> cursor;
    if (heatmap) cursor = std::exchange(heatmap->panel().cursor, std::nullopt);
    canvas->panel().paint(painter, at, style);
    if (heatmap) heatmap->panel().cursor = cursor;
    painter.restore();
  };
  if (target.width() < kNarrow && primary_) return cursorless(primary_, target);
  for (PanelCanvas* canvas : canvases_) {
    if (canvas->isHidden() || whole.isEmpty()) continue;
    const QRectF at(canvas->mapTo(body(), QPoint(0, 0)), QSizeF(canvas->size()));
    const double sx = target.width() / whole.width(), sy = target.height() / whole.height();
    cursorless(canvas,
               QRectF(target.left() + at.left() * sx, target.top() + at.top() * sy, at.width() * sx, at.height() * sy));
  }
}

QJsonObject HeatmapView::saveSettings() const {
  QJsonObject canvases;
  for (const PanelCanvas* canvas : canvases_) {
    QJsonObject one;
    if (const auto* heatmap = qobject_cast<const HeatmapCanvas*>(canvas)) {
      const auto& panel = const_cast<HeatmapCanvas*>(heatmap)->panel();
      if (!panel.isFitted()) {
        const QRectF v = panel.viewport();
        one[QStringLiteral("viewport")] = QJsonArray{v.x(), v.y(), v.width(), v.height()};
      }
      const Planes planes = planes_.value(canvas);
      if (planes.manual) {
        one[QStringLiteral("range")] =
            QJsonArray{planes.manual_scale.low, planes.manual_scale.high, planes.manual_scale.linear_width};
        one[QStringLiteral("signed")] = planes.manual_scale.is_signed;
      }
      QJsonArray pins;
      for (const PanelPin& pin : panel.pins)
        pins << QJsonObject{{QStringLiteral("number"), pin.number},
                            {QStringLiteral("row"), static_cast<qint64>(pin.row)},
                            {QStringLiteral("col"), static_cast<qint64>(pin.col)},
                            {QStringLiteral("text"), pin.text}};
      if (!pins.isEmpty()) one[QStringLiteral("pins")] = pins;
    } else if (const auto* line = qobject_cast<const LineCanvas*>(canvas)) {
      const auto& panel = const_cast<LineCanvas*>(line)->panel();
      if (!panel.isFitted())
        one[QStringLiteral("viewport")] = QJsonArray{panel.viewport().left(), panel.viewport().right()};
    }
    if (!one.isEmpty()) canvases[canvas->objectName()] = one;
  }
  QJsonObject settings{{QStringLiteral("compare"), mode_},
                       {QStringLiteral("blink"), blink_},
                       {QStringLiteral("scale"), QLatin1String(kKinds[static_cast<int>(kind_)])},
                       {QStringLiteral("range"), QLatin1String(kRanges[static_cast<int>(range_)])},
                       {QStringLiteral("map"), ColorMap::id(map_)},
                       {QStringLiteral("lock_scale"), locked_scale_},
                       {QStringLiteral("link_scale"), linked_scale_},
                       {QStringLiteral("maximized"), maximized_ ? maximized_->objectName() : QString()}};
  if (!canvases.isEmpty()) settings[QStringLiteral("plots")] = canvases;
  saveOwn(settings);
  return settings;
}

void HeatmapView::restoreSettings(const QJsonObject& settings) {
  const QSignalBlocker quiet(this);
  mode_ = std::clamp(settings[QStringLiteral("compare")].toInt(mode_), 0, 3);
  kind_ = static_cast<analysis::ScaleKind>(index_of(kKinds, settings[QStringLiteral("scale")].toString()));
  range_ = static_cast<analysis::RangeMode>(index_of(kRanges, settings[QStringLiteral("range")].toString()));
  map_ = ColorMap::fromId(settings[QStringLiteral("map")].toString());
  locked_scale_ = settings[QStringLiteral("lock_scale")].toBool();
  linked_scale_ = settings[QStringLiteral("link_scale")].toBool(true);
  blink_ = false;
  setBlink(settings[QStringLiteral("blink")].toBool());
  if (!blink_) blink_timer_.stop();
  const QJsonObject canvases = settings[QStringLiteral("plots")].toObject();
  for (PanelCanvas* canvas : canvases_) {
    const QJsonObject one = canvases[canvas->objectName()].toObject();
    const QJsonArray v = one[QStringLiteral("viewport")].toArray();
    if (auto* heatmap = qobject_cast<HeatmapCanvas*>(canvas)) {
      heatmap->panel().fit();
      if (v.size() == 4)
        heatmap->panel().setViewport({v[0].toDouble(), v[1].toDouble(), v[2].toDouble(), v[3].toDouble()});
      Planes& planes = planes_[canvas];
      const QJsonArray range = one[QStringLiteral("range")].toArray();
      planes.manual = range.size() == 3;
      if (planes.manual) {
        planes.manual_scale.kind = kind_;
        planes.manual_scale.low = range[0].toDouble();
        planes.manual_scale.high = range[1].toDouble();
        planes.manual_scale.linear_width = range[2].toDouble();
        planes.manual_scale.is_signed = one[QStringLiteral("signed")].toBool();
      }
      heatmap->panel().pins.clear();
      for (const QJsonValue& value : one[QStringLiteral("pins")].toArray()) {
        const QJsonObject pin = value.toObject();
        heatmap->panel().pins.push_back({pin[QStringLiteral("number")].toInt(), pin[QStringLiteral("row")].toInteger(),
                                         pin[QStringLiteral("col")].toInteger(),
                                         pin[QStringLiteral("text")].toString()});
      }
    } else if (auto* line = qobject_cast<LineCanvas*>(canvas)) {
      line->panel().fit();
      if (v.size() == 2) line->panel().setViewport(v[0].toDouble(), v[1].toDouble());
    }
  }
  const QString maximized = settings[QStringLiteral("maximized")].toString();
  maximized_ = nullptr;
  for (PanelCanvas* canvas : canvases_)
    if (!maximized.isEmpty() && canvas->objectName() == maximized) maximized_ = canvas;
  for (PanelCanvas* canvas : canvases_) canvas->setVisible(!maximized_ || canvas == maximized_);
  restoreOwn(settings);
  updateStrip();
  applyModeToAll();
}

QString HeatmapView::tensorTitle(const QString& tensor) {
  if (tensor == QLatin1String("key")) return tr("keys after RoPE");
  if (tensor == QLatin1String("key_pre_rope")) return tr("keys before RoPE");
  if (tensor == QLatin1String("value")) return tr("values");
  if (tensor == QLatin1String("q_proj")) return tr("input of q_proj");
  if (tensor == QLatin1String("o_proj")) return tr("input of o_proj");
  if (tensor == QLatin1String("gate_proj")) return tr("input of gate_proj");
  if (tensor == QLatin1String("down_proj")) return tr("input of down_proj");
  return tensor;
}

}  // namespace qs
