#include "widgets/paint/heatmap_panel.h"

#include <QFontMetricsF>
#include <QPainter>
#include <algorithm>
#include <cmath>

#include "widgets/paint/axes.h"
#include "widgets/paint/color_bar.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

constexpr double kProfile = 34.0;  ///< height of the profile above, and of the bars of the one at the right
constexpr int kLargestImage = 8192;
constexpr double kCellGap = 6.0;        ///< pixels between the numbers of neighbouring cells
constexpr double kSmallestText = 9.0;   ///< pixels a line, below which numbers in cells are left out
constexpr double kTileSight = 1 << 21;  ///< cells in sight below which they are worth fetching
constexpr double kMarkGrid = 3.0;       ///< pixels between the places where marks are sampled
constexpr double kGroupPixels = 6.0;    ///< mean distance of group borders, below which they would hide the cells
const QColor kPickColor(0xff, 0x8c, 0x1a), kSinkColor(0xff, 0xe0, 0x82);

QString label_of(const PanelAxis& axis, std::int64_t index) {
  return axis.label ? axis.label(index) : QString::number(index);
}

double widest_label(const PanelAxis& axis, double from, double to, const QFontMetricsF& metrics) {
  double widest = 0.0;
  for (const double v : index_ticks(std::floor(from), std::max(from + 1, std::ceil(to) - 1), 12))
    widest = std::max(widest, metrics.horizontalAdvance(label_of(axis, static_cast<std::int64_t>(v))));
  return widest;
}

/// Bars and, beside them, their caption.
double right_profile_width(const FigureStyle& style) { return kProfile + QFontMetricsF(style.font).height(); }

}  // namespace

void HeatmapPanel::setData(std::shared_ptr<const analysis::TilePyramid> data) {
  if (data_ && data && (data->rows != data_->rows || data->cols != data_->cols)) viewport_.reset();
  data_ = std::move(data);
  tile_.reset();
  drawn_.reset();
  plane_ = data_ ? analysis::summarize(*data_) : analysis::PlaneSummary{};
  if (cursor && (!data_ || cursor->row >= rows() || cursor->col >= cols())) cursor.reset();
}

void HeatmapPanel::setTile(std::shared_ptr<const analysis::ExactTile> tile) {
  if (tile == tile_) return;
  tile_ = std::move(tile);
  drawn_.reset();
}

bool HeatmapPanel::tileCovers(const QRectF& cells) const {
  return tile_ && tile_->covers(cells.left(), cells.top(), cells.right(), cells.bottom());
}

QRect HeatmapPanel::missingTile() const {
  const QRectF v = viewport();
  if (isEmpty() || data_->exact() || v.width() * v.height() > kTileSight || tileCovers(v)) return {};
  const QRectF wide = v.adjusted(-v.width() / 2, -v.height() / 2, v.width() / 2, v.height() / 2)
                          .intersected(QRectF(0, 0, static_cast<double>(cols()), static_cast<double>(rows())));
  return wide.toAlignedRect();
}

QRectF HeatmapPanel::viewport() const {
  return viewport_ ? *viewport_
                   : QRectF(0, 0, static_cast<double>(std::max<std::int64_t>(1, cols())),
                            static_cast<double>(std::max<std::int64_t>(1, rows())));
}

void HeatmapPanel::setViewport(const QRectF& wanted) {
  if (isEmpty()) {
    if (wanted.isValid()) viewport_ = wanted;
    return;
  }
  const double all_x = static_cast<double>(cols()), all_y = static_cast<double>(rows());
  const double width = std::clamp(wanted.width(), std::min(4.0, all_x), all_x);
  const double height = std::clamp(wanted.height(), std::min(4.0, all_y), all_y);
  const double left = std::clamp(wanted.left(), 0.0, all_x - width),
               top = std::clamp(wanted.top(), 0.0, all_y - height);
  viewport_ = QRectF(left, top, width, height);
  if (width >= all_x && height >= all_y) viewport_.reset();
}

void HeatmapPanel::zoom(double factor, QPointF center, bool x_only) {
  const QRectF v = viewport();
  const double width = v.width() / factor, height = x_only ? v.height() : v.height() / factor;
  setViewport({center.x() - (center.x() - v.left()) * width / v.width(),
               center.y() - (center.y() - v.top()) * height / v.height(), width, height});
}

void HeatmapPanel::pan(double columns, double rows) { setViewport(viewport().translated(columns, rows)); }

QRectF HeatmapPanel::bodyRect(const QRectF& target, const FigureStyle& style) const {
  const QFontMetricsF metrics(style.font);
  const QRectF v = viewport();
  const double left =
      12 + widest_label(y, v.top(), v.bottom(), metrics) + (y.title.isEmpty() ? 0 : metrics.height() + 2);
  double right = rightProfile.empty() ? 8 : right_profile_width(style) + 8;
  if (showColorBar) right += color_bar_width(style, scale, !valueTitle.isEmpty()) + 10;
  const double top = titleHeight(style) + (topProfile.empty() ? 2 : kProfile + 4) + (x.brackets ? 5 : 0);
  const double bottom =
      metrics.height() + 8 + (x.title.isEmpty() ? 0 : metrics.height()) + legendHeight(target.width() - 12, style);
  return QRectF(target.left() + left, target.top() + top, std::max(8.0, target.width() - left - right),
                std::max(8.0, target.height() - top - bottom));
}

QRectF HeatmapPanel::colorBarRect(const QRectF& target, const FigureStyle& style) const {
  if (!showColorBar) return {};
  const QRectF body = bodyRect(target, style);
  const double left = body.right() + (rightProfile.empty() ? 10 : right_profile_width(style) + 14);
  return {left, body.top(), target.right() - left, body.height()};
}

QPointF HeatmapPanel::toCells(QPointF at, const QRectF& body) const {
  const QRectF v = viewport();
  return {v.left() + (at.x() - body.left()) / body.width() * v.width(),
          v.top() + (at.y() - body.top()) / body.height() * v.height()};
}

QPointF HeatmapPanel::toScreen(double col, double row, const QRectF& body) const {
  const QRectF v = viewport();
  return {body.left() + (col - v.left()) / v.width() * body.width(),
          body.top() + (row - v.top()) / v.height() * body.height()};
}

std::optional<Cell> HeatmapPanel::cellAt(QPointF at, const QRectF& target, const FigureStyle& style) const {
  const QRectF body = bodyRect(target, style);
  if (isEmpty() || !body.contains(at)) return std::nullopt;
  const QPointF c = toCells(at, body);
  const Cell cell{static_cast<std::int64_t>(std::floor(c.y())), static_cast<std::int64_t>(std::floor(c.x()))};
  if (cell.row < 0 || cell.col < 0 || cell.row >= rows() || cell.col >= cols()) return std::nullopt;
  return cell;
}

HeatmapRender HeatmapPanel::request() const {
  HeatmapRender render;
  render.data = data_.get();
  render.scale = scale;
  render.map = map;
  render.pool = scale.is_signed && pool == PixelPool::Max ? PixelPool::Extreme : pool;
  render.causal = causal;
  render.mark_zero = !scale.is_signed;
  render.tile = tile_.get();
  return render;
}

QImage HeatmapPanel::renderBody(const QSize& size) const {
  return render_heatmap(request(), viewport(), size, &factor_);
}

QRgb HeatmapPanel::colorOf(float value) const { return heatmap_color(request(), value); }

QString HeatmapPanel::pooledText() const {
  if (isEmpty()) return {};
  if (!drawn_) return {};
  const double cx = viewport().width() / drawn_->size.width(), cy = viewport().height() / drawn_->size.height();
  const QString name = pool == PixelPool::Mean ? QStringLiteral("mean")
                       : scale.is_signed       ? QStringLiteral("extreme")
                                               : QStringLiteral("max");
  const auto wide = static_cast<long long>(std::ceil(std::max(cx, static_cast<double>(factor_)) - 1e-6));
  const auto high = static_cast<long long>(std::ceil(std::max(cy, static_cast<double>(factor_)) - 1e-6));
  if (wide <= 1 && high <= 1) return QStringLiteral("exact");
  return QStringLiteral("%1-pooled %2×%3").arg(name).arg(high).arg(wide);
}

void HeatmapPanel::paintBody(QPainter& painter, const QRectF& body, const FigureStyle&) {
  painter.setRenderHint(QPainter::SmoothPixmapTransform, false);
  if (is_vector(painter)) {
    const QRectF v = viewport();
    const QRectF snapped(QPointF(std::floor(v.left()), std::floor(v.top())),
                         QPointF(std::ceil(v.right()), std::ceil(v.bottom())));
    const QSize size(static_cast<int>(std::min<double>(kLargestImage, snapped.width())),
                     static_cast<int>(std::min<double>(kLargestImage, snapped.height())));
    const QImage image = render_heatmap(request(), snapped, size, &factor_);
    painter.save();
    painter.setClipRect(body);
    painter.drawImage(
        QRectF(toScreen(snapped.left(), snapped.top(), body), toScreen(snapped.right(), snapped.bottom(), body)),
        image);
    painter.restore();
    return;
  }
  const QTransform device = painter.deviceTransform();
  const double dpr_x = std::fabs(device.m11()), dpr_y = std::fabs(device.m22());
  const QSize size(std::max(1, qRound(body.width() * dpr_x)), std::max(1, qRound(body.height() * dpr_y)));
  if (!drawn_ || drawn_->viewport != viewport() || drawn_->size != size || !(drawn_->scale == scale) ||
      drawn_->map != map || drawn_->pool != pool || drawn_->data != data_.get()) {
    drawn_ = Drawn{renderBody(size), viewport(), size, scale, map, pool, data_.get()};
  }
  // On whole device pixels, one to one: anything else would scale the picture on its way.
  const QPointF corner = device.map(body.topLeft());
  bool invertible = false;
  const QTransform back = device.inverted(&invertible);
  const QPointF at = invertible ? back.map(QPointF(std::round(corner.x()), std::round(corner.y()))) : body.topLeft();
  painter.drawImage(QRectF(at, QSizeF(size.width() / dpr_x, size.height() / dpr_y)), drawn_->image);
}

void HeatmapPanel::paintCellTexts(QPainter& painter, const QRectF& body, const FigureStyle& style) const {
  const QRectF v = viewport();
  const double width = body.width() / v.width(), height = body.height() / v.height();
  struct Text {
    std::int64_t row, col;
    QString text;
  };
  std::vector<Text> texts;
  const QFontMetricsF metrics(style.font);
  double widest = 0.0;
  // Fewer digits first, then a smaller font, down to what can still be read; all cells or none.
  for (const int digits : {3, 2}) {
    texts.clear();
    widest = 0.0;
    for (auto r = static_cast<std::int64_t>(v.top()); r < std::min<double>(v.bottom(), static_cast<double>(rows()));
         ++r)
      for (auto c = static_cast<std::int64_t>(v.left()); c < std::min<double>(v.right(), static_cast<double>(cols()));
           ++c) {
        texts.push_back({r, c, number_text(data_->at(r, c), digits)});
        widest = std::max(widest, metrics.horizontalAdvance(texts.back().text));
      }
    if (widest <= width - kCellGap) break;
  }
  const double shrink = std::min({1.0, (width - kCellGap) / std::max(1.0, widest), (height - 1) / metrics.height()});
  if (metrics.height() * shrink < kSmallestText) return;
  QFont font = style.font;
  if (font.pixelSize() > 0) {
    font.setPixelSize(std::max(1, static_cast<int>(font.pixelSize() * shrink)));
  } else {
    font.setPointSizeF(font.pointSizeF() * shrink);
  }
  painter.setFont(font);
  for (const Text& text : texts) {
    painter.setPen(oklab_lightness(colorOf(data_->at(text.row, text.col))) > 0.62 ? QColor(20, 20, 20)
                                                                                  : QColor(245, 245, 245));
    painter.drawText(
        QRectF(toScreen(static_cast<double>(text.col), static_cast<double>(text.row), body), QSizeF(width, height)),
        Qt::AlignCenter, text.text);
  }
}

void HeatmapPanel::paintMarks(QPainter& painter, const QRectF& body) const {
  const QRectF v = viewport();
  const int across = std::max(1, qRound(body.width() / kMarkGrid)),
            down = std::max(1, qRound(body.height() / kMarkGrid));
  const double step_x = body.width() / across, step_y = body.height() / down;
  for (const PanelMarks& marking : marks) {
    if (marking.look == PanelMarks::Look::Picks) {
      painter.setRenderHint(QPainter::Antialiasing);
      const double radius = std::clamp(std::min(body.width() / v.width(), body.height() / v.height()) * 0.35, 1.5, 5.0);
      painter.setPen(QPen(QColor(0, 0, 0, 200), 0.8));
      painter.setBrush(kPickColor);
      // Picks that fall onto one place are drawn once.
      std::vector<bool> taken(static_cast<std::size_t>(across) * static_cast<std::size_t>(down), false);
      for (const Cell& cell : marking.cells) {
        const QPointF p = toScreen(static_cast<double>(cell.col) + 0.5, static_cast<double>(cell.row) + 0.5, body);
        if (!body.contains(p)) continue;
        const auto column = static_cast<std::size_t>(std::min(across - 1.0, (p.x() - body.left()) / step_x));
        const auto row = static_cast<std::size_t>(std::min(down - 1.0, (p.y() - body.top()) / step_y));
        if (taken[row * static_cast<std::size_t>(across) + column]) continue;
        taken[row * static_cast<std::size_t>(across) + column] = true;
        painter.drawEllipse(p, radius, radius);
      }
      painter.setRenderHint(QPainter::Antialiasing, false);
      continue;
    }
    if (!marking.marked) continue;
    const bool hatched = marking.look == PanelMarks::Look::Hatched;
    painter.setPen(Qt::NoPen);
    painter.setBrush(QColor(255, 255, 255, 210));
    for (int y = 0; y < down; ++y) {
      const auto row = static_cast<std::int64_t>(v.top() + (y + 0.5) / down * v.height());
      int begin = -1;  // of a run of hatched places
      for (int x = 0; x <= across; ++x) {
        const auto col = static_cast<std::int64_t>(v.left() + (x + 0.5) / across * v.width());
        const bool on = x < across && row < rows() && col < cols() && marking.marked(row, col);
        if (on && !hatched) painter.drawRect(QRectF(body.left() + x * step_x, body.top() + y * step_y, 1.2, 1.2));
        if (on && begin < 0) begin = x;
        if (on || begin < 0) continue;
        const QRectF run(body.left() + begin * step_x, body.top() + y * step_y, (x - begin) * step_x, step_y);
        begin = -1;
        if (!hatched) continue;
        painter.fillRect(run, QColor(16, 16, 16, 165));
        painter.fillRect(run, QBrush(QColor(255, 255, 255, 120), Qt::DiagCrossPattern));
      }
    }
  }
}

bool HeatmapPanel::groupsAreApart(const PanelAxis& axis, double pixels_per_cell) const {
  if (axis.groups.size() < 2) return !axis.groups.empty();
  const double mean = (axis.groups.back() - axis.groups.front()) / static_cast<double>(axis.groups.size() - 1);
  return mean * pixels_per_cell >= kGroupPixels;
}

void HeatmapPanel::paintGroups(QPainter& painter, const QRectF& body, const FigureStyle& style) const {
  const QRectF v = viewport();
  const auto lines = [&](const PanelAxis& axis, bool vertical) {
    if (!groupsAreApart(axis, vertical ? body.width() / v.width() : body.height() / v.height())) return;
    for (const double at : axis.groups) {
      const QPointF p = toScreen(at, at, body);
      const QLineF line =
          vertical ? QLineF(p.x(), body.top(), p.x(), body.bottom()) : QLineF(body.left(), p.y(), body.right(), p.y());
      painter.setPen(QPen(QColor(0, 0, 0, 130), style.lineWidth * 1.6));
      painter.drawLine(line);
      painter.setPen(QPen(QColor(255, 255, 255, 200), style.lineWidth * 0.7));
      painter.drawLine(line);
    }
  };
  lines(x, true);
  lines(y, false);
}

std::vector<HeatmapPanel::LegendEntry> HeatmapPanel::legend(double width, const QRectF& body,
                                                            const FigureStyle& style) const {
  using Sign = LegendEntry::Sign;
  std::vector<LegendEntry> entries;
  if (isEmpty()) return entries;
  const QRectF v = viewport();
  const auto add = [&](Sign sign, const QString& text) { entries.push_back({sign, text, {}}); };
  const bool far = (!x.groups.empty() && !body.isEmpty() && !groupsAreApart(x, body.width() / v.width())) ||
                   (!y.groups.empty() && !body.isEmpty() && !groupsAreApart(y, body.height() / v.height()));
  for (const QString& title : {x.groupsTitle, y.groupsTitle})
    if (!title.isEmpty()) add(Sign::Groups, far ? QObject::tr("%1 (zoom in to see all)").arg(title) : title);
  for (const PanelBand& band : bands)
    if (!band.label.isEmpty()) add(band.look == PanelBand::Look::Sinks ? Sign::Sinks : Sign::Window, band.label);
  for (const PanelMarks& marking : marks)
    if (!marking.label.isEmpty())
      add(marking.look == PanelMarks::Look::Picks     ? Sign::Picks
          : marking.look == PanelMarks::Look::Hatched ? Sign::Hatched
                                                      : Sign::Dots,
          marking.label);
  const QFontMetricsF metrics(style.font);
  QPointF at;
  for (LegendEntry& entry : entries) {
    const double needed = metrics.height() + 4 + metrics.horizontalAdvance(entry.text) + 14;
    if (at.x() > 0 && at.x() + needed > width) at = QPointF(0, at.y() + metrics.height() + 2);
    entry.at = at;
    at.rx() += needed;
  }
  return entries;
}

double HeatmapPanel::legendHeight(double width, const FigureStyle& style) const {
  // With room for the longest texts, so that zooming does not move the body.
  const std::vector<LegendEntry> entries = legend(width, QRectF(0, 0, 1, 1), style);
  return entries.empty() ? 0.0 : entries.back().at.y() + QFontMetricsF(style.font).height() + 6;
}

void HeatmapPanel::paintLegend(QPainter& painter, const QRectF& target, const QRectF& body,
                               const FigureStyle& style) const {
  using Sign = LegendEntry::Sign;
  const QFontMetricsF metrics(style.font);
  const double height = legendHeight(target.width() - 12, style);
  if (height == 0.0) return;
  painter.save();
  painter.setFont(style.font);
  const QPointF corner(target.left() + 6, target.bottom() - height + 2);
  for (const LegendEntry& entry : legend(target.width() - 12, body, style)) {
    const QRectF sign(corner + entry.at + QPointF(0, 2), QSizeF(metrics.height() - 4, metrics.height() - 4));
    painter.setPen(QPen(style.muted, style.lineWidth));
    painter.setBrush(QColor::fromRgb(ColorMap::get(map).at(90)));
    painter.drawRect(sign);
    const QPointF middle = sign.center();
    painter.setPen(Qt::NoPen);
    if (entry.sign == Sign::Groups) {
      painter.setPen(QPen(Qt::white, style.lineWidth));
      painter.drawLine(QPointF(middle.x(), sign.top() + 1), QPointF(middle.x(), sign.bottom() - 1));
      painter.drawLine(QPointF(sign.left() + 1, middle.y()), QPointF(sign.right() - 1, middle.y()));
    } else if (entry.sign == Sign::Window || entry.sign == Sign::Sinks) {
      const bool sinks = entry.sign == Sign::Sinks;
      painter.fillRect(sign,
                       QBrush(sinks ? kSinkColor : QColor(Qt::white), sinks ? Qt::FDiagPattern : Qt::BDiagPattern));
    } else if (entry.sign == Sign::Hatched) {
      painter.fillRect(sign, QColor(16, 16, 16, 165));
      painter.fillRect(sign, QBrush(QColor(255, 255, 255, 160), Qt::DiagCrossPattern));
    } else if (entry.sign == Sign::Picks) {
      painter.setRenderHint(QPainter::Antialiasing);
      painter.setPen(QPen(Qt::black, 0.8));
      painter.setBrush(kPickColor);
      painter.drawEllipse(middle, 2.8, 2.8);
      painter.setRenderHint(QPainter::Antialiasing, false);
    } else {
      for (double dx = 2; dx < sign.width() - 1; dx += kMarkGrid)
        for (double dy = 2; dy < sign.height() - 1; dy += kMarkGrid)
          painter.fillRect(QRectF(sign.left() + dx, sign.top() + dy, 1.2, 1.2), Qt::white);
    }
    painter.setPen(style.foreground);
    const double left = sign.right() + 5;
    painter.drawText(QPointF(left, corner.y() + entry.at.y() + metrics.ascent()),
                     metrics.elidedText(entry.text, Qt::ElideRight, target.right() - 4 - left));
  }
  painter.restore();
}

void HeatmapPanel::paintOverlays(QPainter& painter, const QRectF& body, const FigureStyle& style) const {
  painter.save();
  painter.setClipRect(body);
  const QRectF v = viewport();
  paintMarks(painter, body);
  paintGroups(painter, body, style);
  const auto lines = [&](const PanelAxis& axis, bool vertical) {
    const double per_cell = vertical ? body.width() / v.width() : body.height() / v.height();
    if (axis.borders.size() > 1 && (axis.borders[1] - axis.borders[0]) * per_cell < 4) return;
    for (const double at : axis.borders) {
      const QPointF p = toScreen(at, at, body);
      const QLineF line =
          vertical ? QLineF(p.x(), body.top(), p.x(), body.bottom()) : QLineF(body.left(), p.y(), body.right(), p.y());
      painter.setPen(QPen(QColor(0, 0, 0, 210), style.lineWidth * 3));
      painter.drawLine(line);
      painter.setPen(QPen(QColor(255, 255, 255, 235), style.lineWidth));
      painter.drawLine(line);
    }
  };
  lines(x, true);
  lines(y, false);
  painter.setFont(style.font);
  const QFontMetricsF metrics(style.font);
  for (const PanelBand& band : bands) {
    const QPointF a = toScreen(band.rows ? v.left() : band.begin, band.rows ? band.begin : v.top(), body);
    const QPointF b = toScreen(band.rows ? v.right() : band.end, band.rows ? band.end : v.bottom(), body);
    const QRectF area = QRectF(a, b).intersected(body);
    if (area.isEmpty()) continue;
    const QColor color = band.look == PanelBand::Look::Sinks ? kSinkColor : QColor(Qt::white);
    QColor line = color, fill = color;
    line.setAlpha(230);
    fill.setAlpha(band.look == PanelBand::Look::Sinks ? 150 : 70);
    painter.setPen(QPen(line, style.lineWidth, Qt::DashLine));
    painter.setBrush(QBrush(fill, band.look == PanelBand::Look::Sinks ? Qt::FDiagPattern : Qt::BDiagPattern));
    painter.drawRect(area);
    if (!band.label.isEmpty() && area.height() > metrics.height()) {
      const QRectF text(area.left() + 4, area.top() + 2, metrics.horizontalAdvance(band.label) + 8, metrics.height());
      painter.fillRect(text, QColor(0, 0, 0, 150));
      painter.setPen(Qt::white);
      painter.drawText(text, Qt::AlignCenter, band.label);
    }
  }
  const auto outline = [&](const QRectF& cells, const QColor& color) {
    const QRectF area(toScreen(cells.left(), cells.top(), body), toScreen(cells.right(), cells.bottom(), body));
    painter.setBrush(Qt::NoBrush);
    painter.setPen(QPen(QColor(0, 0, 0, 170), style.lineWidth * 3));
    painter.drawRect(area);
    painter.setPen(QPen(color, style.lineWidth * 1.5));
    painter.drawRect(area);
  };
  const QColor bright(0xff, 0xd5, 0x4f);
  if (selectedRow >= 0 && selectedRow < rows())
    outline(QRectF(v.left() - 1, static_cast<double>(selectedRow), v.width() + 2, 1), bright);
  if (selectedCol >= 0 && selectedCol < cols())
    outline(QRectF(static_cast<double>(selectedCol), v.top() - 1, 1, v.height() + 2), bright);
  if (!brush.isEmpty()) {
    outline(brush, Qt::white);
    const QRectF area(toScreen(brush.left(), brush.top(), body), toScreen(brush.right(), brush.bottom(), body));
    painter.fillRect(area, QColor(255, 255, 255, 40));
  }
  if (cursor) {
    const QPointF p = toScreen(static_cast<double>(cursor->col) + 0.5, static_cast<double>(cursor->row) + 0.5, body);
    for (const auto& [color, width] :
         {std::pair{QColor(0, 0, 0, 160), 3.0}, std::pair{QColor(255, 255, 255, 235), 1.0}}) {
      painter.setPen(QPen(color, width * style.lineWidth));
      painter.drawLine(QPointF(p.x(), body.top()), QPointF(p.x(), p.y() - 5));
      painter.drawLine(QPointF(p.x(), p.y() + 5), QPointF(p.x(), body.bottom()));
      painter.drawLine(QPointF(body.left(), p.y()), QPointF(p.x() - 5, p.y()));
      painter.drawLine(QPointF(p.x() + 5, p.y()), QPointF(body.right(), p.y()));
    }
  }
  painter.setRenderHint(QPainter::Antialiasing);
  for (const PanelPin& pin : pins) {
    const QPointF p = toScreen(static_cast<double>(pin.col) + 0.5, static_cast<double>(pin.row) + 0.5, body);
    painter.setPen(QPen(Qt::white, style.lineWidth));
    painter.setBrush(QColor(0x1a, 0x1a, 0x1a));
    painter.drawEllipse(p, metrics.height() * 0.55, metrics.height() * 0.55);
    painter.drawText(QRectF(p.x() - 20, p.y() - 20, 40, 40), Qt::AlignCenter, QString::number(pin.number));
  }
  painter.restore();
}

void HeatmapPanel::paintProfiles(QPainter& painter, const QRectF& body, const FigureStyle& style) const {
  const auto largest = [](const std::vector<float>& values) {
    float top = 0.0f;
    for (const float v : values)
      if (std::isfinite(v)) top = std::max(top, v);
    return top > 0 ? top : 1.0f;
  };
  const QRectF v = viewport();
  painter.save();
  painter.setRenderHint(QPainter::Antialiasing);
  painter.setFont(style.font);
  const auto draw = [&](const std::vector<float>& values, bool above, const QString& caption) {
    if (values.empty()) return;
    const double top = largest(values);
    const QRectF area = above ? QRectF(body.left(), body.top() - kProfile - 3, body.width(), kProfile - 1)
                              : QRectF(body.right() + 4, body.top(), kProfile - 2, body.height());
    painter.fillRect(area, style.grid);
    painter.setClipRect(area);
    painter.setPen(Qt::NoPen);
    painter.setBrush(style.accent);
    const double from = above ? v.left() : v.top(), extent = above ? v.width() : v.height();
    const double length = above ? area.width() : area.height();
    const int bins = std::max(1, static_cast<int>(length));
    for (int i = 0; i < bins; ++i) {
      const auto begin = static_cast<std::int64_t>(from + extent * i / bins);
      const auto end = std::max(begin + 1, static_cast<std::int64_t>(from + extent * (i + 1) / bins));
      float value = 0.0f;
      for (std::int64_t k = begin; k < std::min<std::int64_t>(end, static_cast<std::int64_t>(values.size())); ++k)
        value = std::max(value, values[static_cast<std::size_t>(k)]);
      const double at = length * i / bins, thick = length / bins;
      if (above) {
        const double h = value / top * (area.height() - 2);
        painter.drawRect(QRectF(area.left() + at, area.bottom() - h, thick, h));
      } else {
        painter.drawRect(QRectF(area.left(), area.top() + at, value / top * (area.width() - 2), thick));
      }
    }
    painter.setClipping(false);
    painter.setPen(style.muted);
    const QFontMetricsF metrics(style.font);
    if (above) {
      const QString text = metrics.elidedText(QStringLiteral("%1, to %2").arg(caption, number_text(top, 3)),
                                              Qt::ElideRight, area.width());
      QColor behind = style.background;
      behind.setAlphaF(0.75f);
      painter.fillRect(QRectF(area.left() + 2, area.top() + 1, metrics.horizontalAdvance(text) + 5, metrics.height()),
                       behind);
      painter.setPen(style.foreground);
      painter.drawText(QPointF(area.left() + 4, area.top() + metrics.ascent()), text);
    } else {
      painter.save();
      painter.translate(area.right() + metrics.ascent(), area.bottom());
      painter.rotate(-90);
      painter.drawText(QPointF(0, 0), metrics.elidedText(QStringLiteral("%1, to %2").arg(caption, number_text(top, 3)),
                                                         Qt::ElideRight, area.height() - 8));
      painter.restore();
    }
  };
  draw(topProfile, true, topTitle);
  draw(rightProfile, false, rightTitle);
  painter.restore();
}

void HeatmapPanel::paintAxes(QPainter& painter, const QRectF& target, const QRectF& body,
                             const FigureStyle& style) const {
  const QRectF v = viewport();
  const QFontMetricsF metrics(style.font);
  const auto ticks = [&](const PanelAxis& axis, bool vertical) {
    std::vector<AxisTick> result;
    const double from = vertical ? v.top() : v.left(), extent = vertical ? v.height() : v.width();
    const double length = vertical ? body.height() : body.width();
    const double room =
        vertical ? metrics.height() * 1.7 : std::max(38.0, widest_label(axis, from, from + extent, metrics) + 12);
    for (const double i : index_ticks(std::ceil(from - 0.5), std::max(std::ceil(from - 0.5) + 0.5, from + extent - 0.5),
                                      std::max(1, static_cast<int>(length / room)))) {
      const QPointF p = toScreen(i + 0.5, i + 0.5, body);
      result.push_back({vertical ? p.y() : p.x(), label_of(axis, static_cast<std::int64_t>(i))});
    }
    return result;
  };
  painter.setPen(QPen(style.muted, style.lineWidth));
  painter.setBrush(Qt::NoBrush);
  painter.drawRect(body);
  paint_horizontal_axis(painter, style, body.left(), body.right(), body.bottom(), ticks(x, false), x.title);
  paintLegend(painter, target, body, style);
  paint_vertical_axis(painter, style, body.top(), body.bottom(), body.left(), ticks(y, true), y.title,
                      target.left() + 4 + metrics.ascent());
  if (x.brackets > 1) {
    painter.setPen(QPen(style.accent, style.lineWidth));
    const double half = static_cast<double>(x.brackets) / 2;
    for (double base = 0; base < static_cast<double>(cols()); base += static_cast<double>(x.brackets)) {
      // One bracket a head: its first half of the channels rotates with its second half.
      const double a = std::clamp(toScreen(base + 0.5, 0, body).x(), body.left(), body.right());
      const double m = toScreen(base + half, 0, body).x();
      const double b =
          std::clamp(toScreen(base + static_cast<double>(x.brackets) - 0.5, 0, body).x(), body.left(), body.right());
      if (b - a < 3) continue;
      painter.drawLine(QPointF(a, body.top() - 4), QPointF(b, body.top() - 4));
      for (const double at : {a, b}) painter.drawLine(QPointF(at, body.top() - 4), QPointF(at, body.top() - 1));
      if (m > body.left() && m < body.right()) painter.drawLine(QPointF(m, body.top() - 6), QPointF(m, body.top() - 2));
    }
  }
  if (showColorBar) {
    const QRectF bar = colorBarRect(target, style);
    paint_color_bar(painter, style, bar, scale, map, valueTitle);
  }
}

void HeatmapPanel::paint(QPainter& painter, const QRectF& target, const FigureStyle& style) {
  painter.save();
  if (isEmpty()) {
    paintTitle(painter, target, style);
    paintPlaceholder(painter, target, style);
    painter.restore();
    return;
  }
  const QRectF body = bodyRect(target, style);
  paintBody(painter, body, style);
  if (cellTexts) paintCellTexts(painter, body, style);
  paintOverlays(painter, body, style);
  paintProfiles(painter, body, style);
  paintAxes(painter, target, body, style);
  const QString fixed = note;
  QStringList notes;
  if (!fixed.isEmpty()) notes << fixed;
  if (plane_.nan) notes << QStringLiteral("NaN %1").arg(plane_.nan);
  if (plane_.infinite) notes << QStringLiteral("inf %1").arg(plane_.infinite);
  if (plane_.zero && !scale.is_signed && !causal) notes << QStringLiteral("zero %1").arg(plane_.zero);
  const QString pooled = cellTexts ? QString() : pooledText();
  if (!pooled.isEmpty()) notes << pooled;
  note = notes.join(QStringLiteral(" · "));
  paintTitle(painter, target, style);
  note = fixed;
  painter.restore();
}

QString HeatmapPanel::summary() const {
  if (isEmpty()) return placeholder.isEmpty() ? QStringLiteral("%1: nothing to show").arg(title) : placeholder;
  QString text = QStringLiteral("%1: %2 by %3 cells, %4 to %5, largest magnitude at row %6, column %7")
                     .arg(title)
                     .arg(rows())
                     .arg(cols())
                     .arg(number_text(plane_.low), number_text(plane_.high))
                     .arg(plane_.high_row >= 0 ? label_of(y, plane_.high_row) : QString(),
                          plane_.high_col >= 0 ? label_of(x, plane_.high_col) : QString());
  for (const QString& groups : {x.groupsTitle, y.groupsTitle})
    if (!groups.isEmpty()) text += QStringLiteral("; ") + groups;
  for (const PanelBand& band : bands)
    if (!band.label.isEmpty()) text += QStringLiteral("; ") + band.label;
  for (const PanelMarks& marking : marks)
    if (!marking.label.isEmpty()) text += QStringLiteral("; ") + marking.label;
  return text;
}

}  // namespace qs
