#include <cmath>

#include "kernels/float_formats.h"
#include "kernels/kv_attention.h"
#include "kernels/pack_bits.h"

namespace qs::kernels {
namespace {

const std::uint8_t* bytes_at(const Segment& segment, std::int64_t line) noexcept {
  return static_cast<const std::uint8_t*>(segment.data) + line * segment.stride;
}

void dense_row(const Segment& segment, std::int64_t token, std::int64_t head_dim, float* row) noexcept {
  if (segment.storage == Storage::F16) {
    f16_to_f32_scalar(reinterpret_cast<const std::uint16_t*>(bytes_at(segment, token)), row, head_dim);
    return;
  }
  const auto* const from = reinterpret_cast<const float*>(bytes_at(segment, token));
  for (std::int64_t d = 0; d < head_dim; ++d) row[d] = from[d];
}

/// Where the group that holds channel `d` ends inside the head.
std::int64_t group_end(const Segment& segment, std::int64_t d, std::int64_t head_dim) noexcept {
  const std::int64_t end =
      ((segment.channel_offset + d) / segment.group_size + 1) * segment.group_size - segment.channel_offset;
  return end < head_dim ? end : head_dim;
}

void scores_dense(const TileArgs& tile, const float* query, float* scores) noexcept {
  float row[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    dense_row(*tile.segment, tile.begin + t, tile.head_dim, row);
    for (std::int64_t i = 0; i < tile.queries; ++i) {
      float sum = 0.0F;
      for (std::int64_t d = 0; d < tile.head_dim; ++d) sum += query[i * tile.head_dim + d] * row[d];
      scores[i * kTileTokens + t] = sum;
    }
  }
}

void scores_per_channel(const TileArgs& tile, const float* query, float* scores) noexcept {
  const Segment& segment = *tile.segment;
  const std::int64_t block = tile.begin / segment.group_size;
  float folded[kTileQueries][kMaxHeadDim];
  float constant[kTileQueries];
  for (std::int64_t i = 0; i < tile.queries; ++i) {
    constant[i] = 0.0F;
    for (std::int64_t d = 0; d < tile.head_dim; ++d) {
      const float q = query[i * tile.head_dim + d];
      folded[i][d] = q * f16_to_f32(segment.scale[block * segment.scale_stride + d]);
      constant[i] += q * f16_to_f32(segment.group_min[block * segment.scale_stride + d]);
    }
  }
  std::uint8_t codes[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    unpack_block_row(bytes_at(segment, block), segment.group_size, tile.head_dim, segment.bits,
                     (tile.begin + t) % segment.group_size, codes);
    for (std::int64_t i = 0; i < tile.queries; ++i) {
      float sum = 0.0F;
      for (std::int64_t d = 0; d < tile.head_dim; ++d) sum += folded[i][d] * static_cast<float>(codes[d]);
      scores[i * kTileTokens + t] = sum + constant[i];
    }
  }
}

void scores_per_token(const TileArgs& tile, const float* query, float* scores) noexcept {
  const Segment& segment = *tile.segment;
  std::uint8_t codes[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    const std::int64_t token = tile.begin + t;
    unpack_row(bytes_at(segment, token), tile.head_dim, segment.bits, codes);
    for (std::int64_t i = 0; i < tile.queries; ++i) {
      const float* const q = query + i * tile.head_dim;
      float score = 0.0F;
      for (std::int64_t begin = 0; begin < tile.head_dim;) {
        const std::int64_t end = group_end(segment, begin, tile.head_dim);
        float dot = 0.0F;
        float total = 0.0F;
        for (std::int64_t d = begin; d < end; ++d) {
          dot += q[d] * static_cast<float>(codes[d]);
          total += q[d];
        }
        const std::int64_t group = token * segment.scale_stride + (segment.channel_offset + begin) / segment.group_size;
        score += f16_to_f32(segment.scale[group]) * dot + f16_to_f32(segment.group_min[group]) * total;
        begin = end;
      }
      scores[i * kTileTokens + t] = score;
    }
  }
}

void values_dense(const TileArgs& tile, const float* weights, float* out) noexcept {
  float row[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    dense_row(*tile.segment, tile.begin + t, tile.head_dim, row);
    for (std::int64_t i = 0; i < tile.queries; ++i)
      for (std::int64_t d = 0; d < tile.head_dim; ++d)
        out[i * tile.head_dim + d] += weights[i * kTileTokens + t] * row[d];
  }
}

void values_per_token(const TileArgs& tile, const float* weights, float* out) noexcept {
  const Segment& segment = *tile.segment;
  std::uint8_t codes[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    const std::int64_t token = tile.begin + t;
    unpack_row(bytes_at(segment, token), tile.head_dim, segment.bits, codes);
    for (std::int64_t begin = 0; begin < tile.head_dim;) {
      const std::int64_t end = group_end(segment, begin, tile.head_dim);
      const std::int64_t group = token * segment.scale_stride + (segment.channel_offset + begin) / segment.group_size;
      const float scale = f16_to_f32(segment.scale[group]);
      const float low = f16_to_f32(segment.group_min[group]);
      for (std::int64_t i = 0; i < tile.queries; ++i) {
        const float weight = weights[i * kTileTokens + t];
        const float step = weight * scale;
        const float base = weight * low;
        for (std::int64_t d = begin; d < end; ++d)
          out[i * tile.head_dim + d] += step * static_cast<float>(codes[d]) + base;
      }
      begin = end;
    }
  }
}

void values_per_channel(const TileArgs& tile, const float* weights, float* out) noexcept {
  const Segment& segment = *tile.segment;
  const std::int64_t block = tile.begin / segment.group_size;
  std::uint8_t codes[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    unpack_block_row(bytes_at(segment, block), segment.group_size, tile.head_dim, segment.bits,
                     (tile.begin + t) % segment.group_size, codes);
    for (std::int64_t i = 0; i < tile.queries; ++i)
      for (std::int64_t d = 0; d < tile.head_dim; ++d) {
        const std::int64_t group = block * segment.scale_stride + d;
        const float value =
            f16_to_f32(segment.scale[group]) * static_cast<float>(codes[d]) + f16_to_f32(segment.group_min[group]);
        out[i * tile.head_dim + d] += weights[i * kTileTokens + t] * value;
      }
  }
}

}  // namespace

void key_scores_scalar(const TileArgs& tile, const float* query, float* scores) noexcept {
  switch (tile.segment->storage) {
    case Storage::F32:
    case Storage::F16:
      return scores_dense(tile, query, scores);
    case Storage::PerToken:
      return scores_per_token(tile, query, scores);
    case Storage::PerChannel:
      return scores_per_channel(tile, query, scores);
    case Storage::Grouped:
      return grouped_scores_scalar(tile, query, scores);
    case Storage::Table:
      return table_scores_scalar(tile, query, scores);
  }
}

void value_sums_scalar(const TileArgs& tile, const float* weights, float* out) noexcept {
  switch (tile.segment->storage) {
    case Storage::F32:
    case Storage::F16:
      return values_dense(tile, weights, out);
    case Storage::PerToken:
      return values_per_token(tile, weights, out);
    case Storage::PerChannel:
      return values_per_channel(tile, weights, out);
    case Storage::Grouped:
      return grouped_sums_scalar(tile, weights, out);
    case Storage::Table:
      return table_sums_scalar(tile, weights, out);
  }
}

float exp_sum_scalar(float* scores, std::int64_t count, float max) noexcept {
  float sum = 0.0F;
  for (std::int64_t t = 0; t < count; ++t) {
    scores[t] = std::exp(scores[t] - max);
    sum += scores[t];
  }
  return sum;
}

}  // namespace qs::kernels
