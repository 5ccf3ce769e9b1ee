#pragma once

#include <QStringList>
#include <cmath>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "analysis/error_map.h"
#include "analysis/locality.h"
#include "analysis/outliers.h"
#include "analysis/tile_pyramid.h"
#include "backend/types/tensor_view.h"

/// Made-up tensors that look like a small model's: a few outlier channels, attention with a sink and a local band.
namespace qs::test {

inline TensorView gaussian(std::vector<std::int64_t> shape, std::uint32_t seed) {
  std::int64_t size = 1;
  for (const std::int64_t extent : shape) size *= extent;
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<std::size_t>(size));
  for (float& v : values) v = normal(random);
  return TensorView::own(std::move(values), std::move(shape));
}

/// [heads, tokens, head_dim] with channels 5 and head_dim / 2 + 7 of each head ten times as large.
inline TensorView keys_with_outliers(std::int64_t heads, std::int64_t tokens, std::int64_t dim, std::uint32_t seed) {
  const TensorView plain = gaussian({heads, tokens, dim}, seed);
  std::vector<float> values(plain.values().begin(), plain.values().end());
  for (std::int64_t i = 0; i < plain.size(); ++i) {
    const std::int64_t d = i % dim;
    if (d == 5 % dim || d == (dim / 2 + 7) % dim)
      values[static_cast<std::size_t>(i)] = 10.0f * values[static_cast<std::size_t>(i)] + 8.0f;
  }
  return TensorView::own(std::move(values), plain.shape);
}

/// Rounds to `levels` levels over each token of each head; the newest `residual` tokens stay.
inline TensorView rounded(const TensorView& x, int levels, std::int64_t residual) {
  const std::int64_t tokens = x.shape[1], dim = x.shape[2];
  std::vector<float> out(x.values().begin(), x.values().end());
  for (std::int64_t row = 0; row < x.shape[0] * tokens; ++row) {
    if (row % tokens >= tokens - residual) continue;
    float* p = out.data() + row * dim;
    float low = p[0], high = p[0];
    for (std::int64_t d = 1; d < dim; ++d) low = std::min(low, p[d]), high = std::max(high, p[d]);
    const float step = (high - low) / static_cast<float>(levels - 1);
    for (std::int64_t d = 0; d < dim; ++d) p[d] = low + std::nearbyint((p[d] - low) / step) * step;
  }
  return TensorView::own(std::move(out), x.shape);
}

inline std::shared_ptr<analysis::TilePyramid> pyramid(const TensorView& plane) {
  return std::make_shared<analysis::TilePyramid>(analysis::build_pyramid(plane));
}

inline analysis::AttentionInput attention_input(std::int64_t heads, std::int64_t kv_heads, std::int64_t tokens,
                                                std::int64_t dim, std::uint32_t seed) {
  analysis::AttentionInput input;
  const TensorView q = gaussian({heads, tokens, dim}, seed), k = gaussian({kv_heads, tokens, dim}, seed + 1);
  std::vector<float> query(q.values().begin(), q.values().end()), key(k.values().begin(), k.values().end());
  // Two extra-large dimensions rotate slowly with the position (a local band); a third one points to token 0 (a sink).
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t t = 0; t < tokens; ++t) {
      float* p = query.data() + (h * tokens + t) * dim;
      p[0] = 9.0f * std::cos(0.05f * static_cast<float>(t));
      p[1] = 9.0f * std::sin(0.05f * static_cast<float>(t));
      p[2] = 5.0f;
    }
  for (std::int64_t h = 0; h < kv_heads; ++h)
    for (std::int64_t t = 0; t < tokens; ++t) {
      float* p = key.data() + (h * tokens + t) * dim;
      p[0] = 3.0f * std::cos(0.05f * static_cast<float>(t));
      p[1] = 3.0f * std::sin(0.05f * static_cast<float>(t));
      p[2] = t == 0 ? 6.0f : 0.0f;
    }
  input.query = TensorView::own(std::move(query), q.shape);
  input.key = TensorView::own(std::move(key), k.shape);
  return input;
}

}  // namespace qs::test
