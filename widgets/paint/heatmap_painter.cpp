#include "widgets/paint/heatmap_painter.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace qs {
namespace {

/// log2 to about 1e-4, which is finer than a colour step over 20 decades.
float fast_log2(float x) {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  const float exponent = static_cast<float>(static_cast<std::int32_t>(bits >> 23) - 127);
  const float m = std::bit_cast<float>((bits & 0x7fffffu) | 0x3f800000u);
  return exponent + ((((0.0430049578f * m - 0.402513394f) * m + 1.58947429f) * m - 3.48987855f) * m + 5.04785541f) * m -
         2.78792621f;
}

class Mapper {
 public:
  explicit Mapper(const HeatmapRender& render) : render_(render), lut_(ColorMap::get(render.map).lut().data()) {
    const auto& s = render.scale;
    if (s.kind == analysis::ScaleKind::Linear) {
      offset_ = static_cast<float>(s.low);
      gain_ = static_cast<float>(255.0 / (s.high - s.low));
    } else if (s.kind == analysis::ScaleKind::Log10) {
      offset_ = static_cast<float>(std::log2(s.low));
      gain_ = static_cast<float>(255.0 / (std::log2(s.high) - std::log2(s.low)));
    }
  }

  QRgb operator()(float v) const {
    if (v != v) return ColorMap::kNan;
    if (std::isinf(v)) return ColorMap::kInfinite;
    if (v == 0.0f && render_.mark_zero) return ColorMap::kZero;
    float position = 0.0f;
    switch (render_.scale.kind) {
      case analysis::ScaleKind::Linear:
        position = (v - offset_) * gain_;
        break;
      case analysis::ScaleKind::Log10:
        position = v > 0 ? (fast_log2(v) - offset_) * gain_ : 0.0f;
        break;
      case analysis::ScaleKind::SymLog:
        position = static_cast<float>(render_.scale.position(v) * 255.0);
        break;
    }
    return lut_[static_cast<std::size_t>(std::clamp(position, 0.0f, 255.0f) + 0.5f)];
  }

 private:
  const HeatmapRender& render_;
  const QRgb* lut_;
  float offset_ = 0.0f, gain_ = 1.0f;
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

}  // namespace

QRgb heatmap_color(const HeatmapRender& render, float value) { return Mapper(render)(value); }

QImage render_heatmap(const HeatmapRender& render, const QRectF& viewport, const QSize& size,
                      std::int64_t* factor_used) {
  QImage image(size, QImage::Format_ARGB32_Premultiplied);
  image.fill(Qt::transparent);
  if (!render.data || render.data->levels.empty() || size.isEmpty() || viewport.isEmpty()) return image;
  const auto& level =
      analysis::pick_level(*render.data, viewport.width() / size.width(), viewport.height() / size.height());
  if (factor_used) *factor_used = level.factor;
  const std::int64_t rows = level.mean.shape[0], cols = level.mean.shape[1];
  const auto xs = spans(viewport.x(), viewport.width(), size.width(), level.factor, cols);
  const auto ys = spans(viewport.y(), viewport.height(), size.height(), level.factor, rows);
  std::int64_t first = cols, last = 0;
  for (const Span& s : xs)
    if (s.end > s.begin) first = std::min(first, s.begin), last = std::max(last, s.end);
  if (first >= last) return image;
  const Mapper color(render);
  const auto width = static_cast<std::size_t>(last - first);
  std::vector<float> top(width), bottom(width);
  Span previous{-1, -1};
  const QRgb* drawn = nullptr;
  for (int y = 0; y < size.height(); ++y) {
    const Span& rows_here = ys[static_cast<std::size_t>(y)];
    if (rows_here.end <= rows_here.begin) continue;
    auto* line = reinterpret_cast<QRgb*>(image.scanLine(y));
    if (drawn && rows_here.begin == previous.begin && rows_here.end == previous.end) {
      std::copy(drawn, drawn + size.width(), line);
      continue;
    }
    const auto start = [&](const TensorView& t, std::int64_t r) { return t.data + r * cols + first; };
    const float* const mean0 = start(level.mean, rows_here.begin);
    const float* const max0 = start(level.max, rows_here.begin);
    const float* const min0 = start(level.min, rows_here.begin);
    const auto count = static_cast<float>(rows_here.end - rows_here.begin);
    if (render.pool == PixelPool::Mean) {
      std::copy(mean0, mean0 + width, top.begin());
    } else if (render.pool == PixelPool::Max) {
      std::copy(max0, max0 + width, top.begin());
    } else {
      for (std::size_t i = 0; i < width; ++i) top[i] = extreme(max0[i], min0[i]);
    }
    for (std::int64_t r = rows_here.begin + 1; r < rows_here.end; ++r) {
      if (render.pool == PixelPool::Mean) {
        const float* p = start(level.mean, r);
        for (std::size_t i = 0; i < width; ++i) top[i] += p[i];
      } else if (render.pool == PixelPool::Max) {
        const float* p = start(level.max, r);
        for (std::size_t i = 0; i < width; ++i) top[i] = larger(top[i], p[i]);
      } else {
        const float *p = start(level.max, r), *q = start(level.min, r);
        for (std::size_t i = 0; i < width; ++i) top[i] = extreme(extreme(top[i], p[i]), q[i]);
      }
    }
    for (int x = 0; x < size.width(); ++x) {
      const Span& s = xs[static_cast<std::size_t>(x)];
      if (s.end <= s.begin) continue;
      if (render.causal && s.begin > rows_here.end - 1) continue;
      float value = top[static_cast<std::size_t>(s.begin - first)];
      for (std::int64_t c = s.begin + 1; c < s.end; ++c) {
        const float v = top[static_cast<std::size_t>(c - first)];
        value = render.pool == PixelPool::Mean  ? value + v
                : render.pool == PixelPool::Max ? larger(value, v)
                                                : extreme(value, v);
      }
      if (render.pool == PixelPool::Mean) value /= count * static_cast<float>(s.end - s.begin);
      line[x] = color(value);
    }
    previous = rows_here;
    drawn = line;
  }
  return image;
}

}  // namespace qs
