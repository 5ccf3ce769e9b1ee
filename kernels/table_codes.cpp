#include "kernels/table_codes.h"

#include <cmath>
#include <limits>

#include "kernels/float_formats.h"
#include "kernels/pack_bits.h"

namespace qs::kernels {
namespace {

const std::uint8_t* row_of(const Segment& segment, std::int64_t token) noexcept {
  return static_cast<const std::uint8_t*>(segment.data) + token * segment.stride;
}

}  // namespace

void nearest_levels_scalar(const float* y, std::int64_t count, const float* levels, int level_count,
                           std::uint8_t* codes) noexcept {
  for (std::int64_t i = 0; i < count; ++i) {
    float best = std::numeric_limits<float>::infinity();
    int code = 0;
    for (int level = 0; level < level_count; ++level) {
      const float distance = std::fabs(y[i] - levels[level]);
      if (distance < best) {
        best = distance;
        code = level;
      }
    }
    codes[i] = static_cast<std::uint8_t>(code);
  }
}

void fill_table(const float* entries, std::int64_t count, float* table) noexcept {
  for (std::int64_t i = 0; i < kTableSize; ++i) table[i] = entries[i % count];
}

void decode_table_row(const Segment& segment, std::int64_t token, const std::uint8_t* codes, std::int64_t head_dim,
                      float* row) noexcept {
  const TableRows& rows = *segment.rows;
  if (rows.channel_scale != nullptr) {
    for (std::int64_t d = 0; d < head_dim; ++d) {
      const float scaled = rows.table[codes[d]] * rows.channel_scale[d];
      row[d] = scaled + rows.channel_zero[d];
    }
    return;
  }
  const float scale = f16_to_f32(segment.scale[token * segment.scale_stride]);
  const float zero = f16_to_f32(segment.group_min[token * segment.scale_stride]);
  for (std::int64_t d = 0; d < head_dim; ++d) {
    const float scaled = rows.table[codes[d]] * scale;
    row[d] = scaled + zero;
  }
}

void table_scores_scalar(const TileArgs& tile, const float* query, float* scores) noexcept {
  const Segment& segment = *tile.segment;
  const TableRows& rows = *segment.rows;
  std::uint8_t codes[kMaxHeadDim];
  float row[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    const std::int64_t token = tile.begin + t;
    unpack_bit_stream(row_of(segment, token), tile.head_dim, segment.bits, codes);
    decode_table_row(segment, token, codes, tile.head_dim, row);
    const float* const cosine = rows.rotation + token * 2 * rows.half;
    for (std::int64_t d = 0; rows.rotation != nullptr && d < rows.half; ++d) {
      const float c = cosine[d];
      const float s = cosine[rows.half + d];
      const float first = row[d];
      const float second = row[d + rows.half];
      row[d] = first * c - second * s;
      row[d + rows.half] = second * c + first * s;
    }
    for (std::int64_t i = 0; i < tile.queries; ++i) {
      float sum = 0.0F;
      for (std::int64_t d = 0; d < tile.head_dim; ++d) sum += query[i * tile.head_dim + d] * row[d];
      scores[i * kTileTokens + t] = sum;
    }
  }
  add_sparse_scores(tile, query, scores);
}

void table_sums_scalar(const TileArgs& tile, const float* weights, float* out) noexcept {
  const Segment& segment = *tile.segment;
  std::uint8_t codes[kMaxHeadDim];
  float row[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    unpack_bit_stream(row_of(segment, tile.begin + t), tile.head_dim, segment.bits, codes);
    decode_table_row(segment, tile.begin + t, codes, tile.head_dim, row);
    for (std::int64_t i = 0; i < tile.queries; ++i)
      for (std::int64_t d = 0; d < tile.head_dim; ++d)
        out[i * tile.head_dim + d] += weights[i * kTileTokens + t] * row[d];
  }
  add_sparse_sums(tile, weights, out);
}

void add_sparse_scores(const TileArgs& tile, const float* query, float* scores) noexcept {
  const TableRows& rows = *tile.segment->rows;
  const std::int64_t half = rows.rotation == nullptr ? 0 : rows.half;
  for (std::int64_t i = 0; i < rows.sparse_count; ++i) {
    const SparseElement element = rows.sparse[i];
    const std::int64_t t = element.token - tile.begin;
    if (t < 0 || t >= tile.count) continue;
    if (element.channel >= 2 * half) {
      for (std::int64_t q = 0; q < tile.queries; ++q)
        scores[q * kTileTokens + t] += query[q * tile.head_dim + element.channel] * element.excess;
      continue;
    }
    const bool upper = element.channel >= half;
    const std::int64_t pair = element.channel - (upper ? half : 0);
    const std::int64_t partner = upper ? pair : pair + half;
    const float* const cosine = rows.rotation + element.token * 2 * half + pair;
    const float own = element.excess * cosine[0];
    const float other = element.excess * (upper ? -cosine[half] : cosine[half]);
    for (std::int64_t q = 0; q < tile.queries; ++q) {
      const float* const row = query + q * tile.head_dim;
      scores[q * kTileTokens + t] += row[element.channel] * own + row[partner] * other;
    }
  }
}

void add_sparse_sums(const TileArgs& tile, const float* weights, float* out) noexcept {
  const TableRows& rows = *tile.segment->rows;
  for (std::int64_t i = 0; i < rows.sparse_count; ++i) {
    const SparseElement element = rows.sparse[i];
    const std::int64_t t = element.token - tile.begin;
    if (t < 0 || t >= tile.count) continue;
    for (std::int64_t q = 0; q < tile.queries; ++q)
      out[q * tile.head_dim + element.channel] += weights[q * kTileTokens + t] * element.excess;
  }
}

}  // namespace qs::kernels
