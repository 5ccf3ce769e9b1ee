#include "widgets/paint/heatmap_painter.h"

#include <QSemaphore>
#include <QThread>
#include <QThreadPool>
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

namespace qs {
namespace {

constexpr std::uint32_t kMagnitude = 0x7fffffffu, kInfinity = 0x7f800000u;
constexpr std::int64_t kTableSize = 4096;       ///< entries of a table of magnitudes, at most
constexpr std::int64_t kPixelsABand = 1 << 16;  ///< fewer pixels are not worth another thread
constexpr int kMostThreads = 8;

/// Colours of magnitudes low..high, looked up by the upper bits of the float: a logarithm without its cost. Those bits
/// are the exponent and as much of the mantissa as the table has room for, which is far finer than a colour step.
class MagnitudeTable {
 public:
  MagnitudeTable() = default;
  template <typename ColorOf>
  MagnitudeTable(float low, float high, const ColorOf& color_of)
      : low_(std::bit_cast<std::int32_t>(low)), high_(std::max(low_, std::bit_cast<std::int32_t>(high))) {
    while (((static_cast<std::int64_t>(high_) - low_) >> shift_) >= kTableSize) ++shift_;
    colors_.resize(static_cast<std::size_t>((high_ - low_) >> shift_) + 1);
    for (std::size_t i = 0; i < colors_.size(); ++i) {
      const std::int64_t middle = low_ + (static_cast<std::int64_t>(i) << shift_) + ((std::int64_t{1} << shift_) >> 1);
      colors_[i] = color_of(std::bit_cast<float>(static_cast<std::int32_t>(std::min<std::int64_t>(middle, high_))));
    }
  }
  /// @param bits  of a float that is no NaN; negative ones are below every magnitude
  QRgb operator()(std::int32_t bits) const {
    return colors_[static_cast<std::size_t>((std::clamp(bits, low_, high_) - low_) >> shift_)];
  }

 private:
  std::int32_t low_ = 0, high_ = 0;
  int shift_ = 0;
  std::vector<QRgb> colors_;
};

class Mapper {
 public:
  explicit Mapper(const HeatmapRender& render)
      : kind_(render.scale.kind), mark_zero_(render.mark_zero), lut_(ColorMap::get(render.map).lut().data()) {
    const auto& s = render.scale;
    const auto exact = [&](float v) { return lut_[static_cast<std::size_t>(s.position(v) * 255.0 + 0.5)]; };
    if (kind_ == analysis::ScaleKind::Log10) {
      positive_ = MagnitudeTable(static_cast<float>(s.low), static_cast<float>(s.high), exact);
    } else if (kind_ == analysis::ScaleKind::SymLog) {
      // Linear between -width and +width, a table of magnitudes on either side.
      width_ = static_cast<float>(s.linear_width);
      const auto top = static_cast<float>(std::max({std::fabs(s.low), std::fabs(s.high), s.linear_width}));
      positive_ = MagnitudeTable(width_, top, exact);
      negative_ = MagnitudeTable(width_, top, [&](float v) { return exact(-v); });
      const double from = s.position(-s.linear_width) * 255.0, to = s.position(s.linear_width) * 255.0;
      gain_ = static_cast<float>((to - from) / (2.0 * s.linear_width));
      offset_ = static_cast<float>(from) + width_ * gain_;
    } else {
      gain_ = static_cast<float>(255.0 / (s.high - s.low));
      offset_ = -static_cast<float>(s.low) * gain_;
    }
  }

  QRgb operator()(float v) const {
    const auto bits = std::bit_cast<std::uint32_t>(v), magnitude = bits & kMagnitude;
    if (magnitude >= kInfinity) return magnitude > kInfinity ? ColorMap::kNan : ColorMap::kInfinite;
    if (magnitude == 0 && mark_zero_) return ColorMap::kZero;
    if (kind_ == analysis::ScaleKind::Log10) return positive_(static_cast<std::int32_t>(bits));
    if (kind_ == analysis::ScaleKind::SymLog && std::fabs(v) > width_)
      return (v < 0 ? negative_ : positive_)(static_cast<std::int32_t>(magnitude));
    return lut_[static_cast<std::size_t>(std::clamp(v * gain_ + offset_, 0.0f, 255.0f) + 0.5f)];
  }

 private:
  analysis::ScaleKind kind_;
  bool mark_zero_;
  const QRgb* lut_;
  float offset_ = 0.0f, gain_ = 1.0f, width_ = 0.0f;
  MagnitudeTable positive_, negative_;
};

struct Span {
  std::int64_t begin, end;  ///< cells of a level; empty when outside
};

std::vector<Span> spans(double from, double extent, int pixels, std::int64_t factor, std::int64_t cells) {
  std::vector<Span> result(static_cast<std::size_t>(pixels));
  const double per_pixel = extent / pixels / static_cast<double>(factor), start = from / static_cast<double>(factor);
  for (int i = 0; i < pixels; ++i) {
    const double a = start + i * per_pixel, b = a + per_pixel;
    Span& span = result[static_cast<std::size_t>(i)];
    if (per_pixel <= 1.0) {
      span.begin = static_cast<std::int64_t>(std::floor((a + b) / 2));
      span.end = span.begin + 1;
    } else {
      span.begin = static_cast<std::int64_t>(std::floor(a + 1e-9));
      span.end = std::max(span.begin + 1, static_cast<std::int64_t>(std::floor(b + 1e-9)));
    }
    if (span.begin < 0 || span.begin >= cells) span = {0, 0};
    span.end = std::min(span.end, cells);
  }
  return result;
}

float larger(float a, float b) { return (b > a) | (b != b) ? b : a; }
float extreme(float a, float b) { return (std::fabs(b) > std::fabs(a)) | (b != b) ? b : a; }

/// Draws the pixel rows of one band at a time; nothing that two bands would write.
class BandPainter {
 public:
  BandPainter(const HeatmapRender& render, const analysis::PyramidLevel& level, std::vector<Span> xs,
              std::vector<Span> ys)
      : render_(render), level_(level), color_(render), xs_(std::move(xs)), ys_(std::move(ys)) {
    first_ = level.mean.shape[1];
    for (const Span& s : xs_)
      if (s.end > s.begin) first_ = std::min(first_, s.begin), last_ = std::max(last_, s.end);
  }

  bool isEmpty() const { return first_ >= last_; }
  /// Whether every pixel gets a colour.
  bool isOpaque() const {
    const auto filled = [](const Span& s) { return s.end > s.begin; };
    return !render_.causal && std::all_of(xs_.begin(), xs_.end(), filled) &&
           std::all_of(ys_.begin(), ys_.end(), filled);
  }

  void paint(uchar* bits, qsizetype stride, int from, int to) const {
    std::vector<float> row(static_cast<std::size_t>(last_ - first_));
    const QRgb* drawn = nullptr;
    for (int y = from; y < to; ++y) {
      const Span& rows = ys_[static_cast<std::size_t>(y)];
      if (rows.end <= rows.begin) continue;
      auto* line = reinterpret_cast<QRgb*>(bits + y * stride);
      if (drawn && rows.begin == ys_[static_cast<std::size_t>(y - 1)].begin &&
          rows.end == ys_[static_cast<std::size_t>(y - 1)].end) {
        std::copy(drawn, drawn + xs_.size(), line);
      } else {
        pool(rows, row);
        colour(rows, row, line);
      }
      drawn = line;
    }
  }

 private:
  /// The rows of a span as one, column by column.
  void pool(const Span& rows, std::vector<float>& out) const {
    const auto start = [&](const TensorView& t, std::int64_t r) { return t.data + r * level_.mean.shape[1] + first_; };
    const std::size_t width = out.size();
    for (std::int64_t r = rows.begin; r < rows.end; ++r) {
      const bool first = r == rows.begin;
      if (render_.pool == PixelPool::Mean) {
        const float* p = start(level_.mean, r);
        for (std::size_t i = 0; i < width; ++i) out[i] = first ? p[i] : out[i] + p[i];
      } else if (render_.pool == PixelPool::Max) {
        const float* p = start(level_.max, r);
        for (std::size_t i = 0; i < width; ++i) out[i] = first ? p[i] : larger(out[i], p[i]);
      } else {
        const float *p = start(level_.max, r), *q = start(level_.min, r);
        for (std::size_t i = 0; i < width; ++i) out[i] = extreme(first ? p[i] : extreme(out[i], p[i]), q[i]);
      }
    }
  }

  void colour(const Span& rows, const std::vector<float>& row, QRgb* line) const {
    const auto count = static_cast<float>(rows.end - rows.begin);
    const std::int64_t visible = rows.end * level_.factor - 1 - render_.diagonal;
    for (std::size_t x = 0; x < xs_.size(); ++x) {
      const Span& s = xs_[x];
      if (s.end <= s.begin || (render_.causal && s.begin * level_.factor > visible)) continue;
      if (x > 0 && s.begin == xs_[x - 1].begin && s.end == xs_[x - 1].end) {
        line[x] = line[x - 1];
        continue;
      }
      float value = row[static_cast<std::size_t>(s.begin - first_)];
      for (std::int64_t c = s.begin + 1; c < s.end; ++c) {
        const float v = row[static_cast<std::size_t>(c - first_)];
        value = render_.pool == PixelPool::Mean  ? value + v
                : render_.pool == PixelPool::Max ? larger(value, v)
                                                 : extreme(value, v);
      }
      if (render_.pool == PixelPool::Mean) value /= count * static_cast<float>(s.end - s.begin);
      line[x] = color_(value);
    }
  }

  const HeatmapRender& render_;
  const analysis::PyramidLevel& level_;
  const Mapper color_;
  const std::vector<Span> xs_, ys_;
  std::int64_t first_ = 0, last_ = 0;
};

/// Its own threads: the global ones may be busy with minutes of work.
QThreadPool& band_threads() {
  static QThreadPool pool;
  return pool;
}

}  // namespace

QRgb heatmap_color(const HeatmapRender& render, float value) {
  // One value: without the tables that a whole picture is worth.
  if (!std::isfinite(value) || value == 0.0f || render.scale.kind == analysis::ScaleKind::Linear) {
    HeatmapRender plain = render;
    if (value != 0.0f || render.mark_zero) plain.scale.kind = analysis::ScaleKind::Linear;
    return Mapper(plain)(value);
  }
  return ColorMap::get(render.map).color(render.scale.position(value));
}

QImage render_heatmap(const HeatmapRender& render, const QRectF& viewport, const QSize& size,
                      std::int64_t* factor_used) {
  QImage image(size, QImage::Format_ARGB32_Premultiplied);
  image.fill(Qt::transparent);
  if (!render.data || render.data->levels.empty() || size.isEmpty() || viewport.isEmpty()) return image;
  if (render.tile && render.tile->covers(viewport.left(), viewport.top(), viewport.right(), viewport.bottom())) {
    HeatmapRender exact = render;
    exact.data = &render.tile->plane;
    exact.tile = nullptr;
    exact.diagonal = render.diagonal + render.tile->col - render.tile->row;
    return render_heatmap(
        exact, viewport.translated(-static_cast<double>(render.tile->col), -static_cast<double>(render.tile->row)),
        size, factor_used);
  }
  const auto& level =
      analysis::pick_level(*render.data, viewport.width() / size.width(), viewport.height() / size.height());
  if (factor_used) *factor_used = level.factor;
  const BandPainter bands(render, level,
                          spans(viewport.x(), viewport.width(), size.width(), level.factor, level.mean.shape[1]),
                          spans(viewport.y(), viewport.height(), size.height(), level.factor, level.mean.shape[0]));
  if (bands.isEmpty()) return image;
  const std::int64_t pixels = std::int64_t{size.width()} * size.height();
  const int count = static_cast<int>(std::clamp<std::int64_t>(
      pixels / kPixelsABand, 1, std::min({kMostThreads, QThread::idealThreadCount(), size.height()})));
  uchar* const bits = image.bits();
  const qsizetype stride = image.bytesPerLine();
  const auto band = [&](int i) {
    bands.paint(bits, stride, size.height() * i / count, size.height() * (i + 1) / count);
  };
  QSemaphore done;
  for (int i = 1; i < count; ++i)
    band_threads().start([&, i] {
      band(i);
      done.release();
    });
  band(0);
  done.acquire(count - 1);
  if (bands.isOpaque()) image.reinterpretAsFormat(QImage::Format_RGB32);
  return image;
}

}  // namespace qs
