#include "kernels/kv_attention.h"

#include <cmath>
#include <limits>

#include "kernels/dispatch.h"
#include "kernels/float_formats.h"
#include "kernels/pack_bits.h"
#include "kernels/table_codes.h"

namespace qs::kernels {
namespace {

/// Far below every score, and finite so that differences of such scores are.
constexpr float kDeadScore = -1e30F;

/// Walks the tokens of a list of segments in pieces that lie in one segment (and one block, where there are blocks).
struct Cursor {
  const Segment* segments = nullptr;
  std::int64_t count = 0, index = 0;
  std::int64_t first = 0;  ///< token of the sequence where segment `index` begins

  TileArgs piece(std::int64_t token, std::int64_t end) noexcept {
    while (index < count && token >= first + segments[index].tokens) first += segments[index++].tokens;
    TileArgs tile;
    if (index == count) return tile;
    const Segment& segment = segments[index];
    tile.segment = &segment;
    tile.begin = token - first;
    std::int64_t stop = end - first < segment.tokens ? end - first : segment.tokens;
    if (segment.storage == Storage::PerChannel) {
      const std::int64_t block_end = (tile.begin / segment.group_size + 1) * segment.group_size;
      if (stop > block_end) stop = block_end;
    }
    tile.count = stop - tile.begin;
    return tile;
  }
};

void cap_scores(float* scores, std::int64_t count, float cap) noexcept {
  for (std::int64_t t = 0; t < count; ++t) scores[t] = cap * std::tanh(scores[t] / cap);
}

}  // namespace

void reset_partial(const AttentionPartial& partial, std::int64_t queries, std::int64_t head_dim) noexcept {
  for (std::int64_t i = 0; i < queries; ++i) {
    partial.max[i] = -std::numeric_limits<float>::infinity();
    partial.sum[i] = 0.0F;
  }
  for (std::int64_t i = 0; i < queries * head_dim; ++i) partial.out[i] = 0.0F;
}

void attend_head(const KernelSet& set, const HeadAttention& args, const AttentionPartial& partial) noexcept {
  alignas(64) float scores[kTileQueries * kTileTokens + kTilePadding];
  Cursor keys{args.keys, args.key_segments, 0, args.key_first};
  Cursor values{args.values, args.value_segments, 0, args.value_first};
  for (std::int64_t tile_begin = args.token_begin; tile_begin < args.token_end; tile_begin += kTileTokens) {
    const std::int64_t tile_end = tile_begin + kTileTokens < args.token_end ? tile_begin + kTileTokens : args.token_end;
    const Cursor keys_before = keys;
    const Cursor values_before = values;
    for (std::int64_t head = 0; head < args.queries; head += kTileQueries) {
      const std::int64_t heads = args.queries - head < kTileQueries ? args.queries - head : kTileQueries;
      keys = keys_before;
      values = values_before;
      for (std::int64_t token = tile_begin; token < tile_end;) {
        TileArgs tile = keys.piece(token, tile_end);
        if (tile.count <= 0) return;
        tile.queries = heads;
        tile.head_dim = args.head_dim;
        tile.arithmetic = args.arithmetic;
        tile.rotation = args.key_rotation;
        tile.token = token;
        set.key_scores(tile, args.query + head * args.head_dim, scores + (token - tile_begin));
        token += tile.count;
      }
      for (std::int64_t i = 0; args.score_softcap > 0.0F && i < heads; ++i)
        cap_scores(scores + i * kTileTokens, tile_end - tile_begin, args.score_softcap);
      if (args.dead != nullptr) {
        for (std::int64_t i = 0; i < heads; ++i) {
          for (std::int64_t t = 0; t < tile_end - tile_begin; ++t)
            if (args.dead[tile_begin + t] != 0) scores[i * kTileTokens + t] = kDeadScore;
        }
      }
      if (args.scores != nullptr) {
        const std::int64_t first = tile_begin > args.score_begin ? tile_begin : args.score_begin;
        for (std::int64_t i = 0; i < heads; ++i) {
          float* const row = args.scores + (head + i) * args.score_stride;
          for (std::int64_t token = first; token < tile_end; ++token)
            row[token - args.score_begin] = scores[i * kTileTokens + token - tile_begin];
        }
      }
      float* const out = partial.out + head * args.head_dim;
      for (std::int64_t i = 0; i < heads; ++i) {
        float* const row = scores + i * kTileTokens;
        float max = partial.max[head + i];
        for (std::int64_t t = 0; t < tile_end - tile_begin; ++t)
          if (row[t] > max) max = row[t];
        if (max > partial.max[head + i]) {
          const float shrink = std::exp(partial.max[head + i] - max);
          partial.max[head + i] = max;
          partial.sum[head + i] *= shrink;
          for (std::int64_t d = 0; d < args.head_dim; ++d) out[i * args.head_dim + d] *= shrink;
        }
        partial.sum[head + i] += set.exp_sum(row, tile_end - tile_begin, max);
        for (std::int64_t t = 0; args.dead != nullptr && t < tile_end - tile_begin; ++t)
          if (args.dead[tile_begin + t] != 0) row[t] = 0.0F;
      }
      for (std::int64_t token = tile_begin; token < tile_end;) {
        TileArgs tile = values.piece(token, tile_end);
        if (tile.count <= 0) return;
        tile.queries = heads;
        tile.head_dim = args.head_dim;
        tile.arithmetic = args.arithmetic;
        set.value_sums(tile, scores + (token - tile_begin), out);
        token += tile.count;
      }
    }
  }
}

void merge_partial(const AttentionPartial& partial, const AttentionPartial& other, std::int64_t queries,
                   std::int64_t head_dim) noexcept {
  for (std::int64_t i = 0; i < queries; ++i) {
    if (!(other.sum[i] > 0.0F)) continue;
    const float max = partial.max[i] > other.max[i] ? partial.max[i] : other.max[i];
    const float ours = partial.sum[i] > 0.0F ? std::exp(partial.max[i] - max) : 0.0F;
    const float theirs = std::exp(other.max[i] - max);
    partial.max[i] = max;
    partial.sum[i] = partial.sum[i] * ours + other.sum[i] * theirs;
    for (std::int64_t d = i * head_dim; d < (i + 1) * head_dim; ++d)
      partial.out[d] = partial.out[d] * ours + other.out[d] * theirs;
  }
}

void finish_attention(const AttentionPartial& partial, std::int64_t queries, std::int64_t head_dim,
                      float* out) noexcept {
  for (std::int64_t i = 0; i < queries; ++i) {
    const float norm = 1.0F / partial.sum[i];
    for (std::int64_t d = i * head_dim; d < (i + 1) * head_dim; ++d) out[d] = partial.out[d] * norm;
  }
}

void decode_segment(const Segment& segment, std::int64_t head_dim, float* x, std::int64_t row_stride) noexcept {
  std::uint8_t codes[kMaxHeadDim];
  const auto* const data = static_cast<const std::uint8_t*>(segment.data);
  for (std::int64_t token = 0; token < segment.tokens; ++token) {
    float* const row = x + token * row_stride;
    if (segment.storage == Storage::F32) {
      const auto* const from = reinterpret_cast<const float*>(data + token * segment.stride);
      for (std::int64_t d = 0; d < head_dim; ++d) row[d] = from[d];
      continue;
    }
    if (segment.storage == Storage::Grouped) {
      decode_grouped_scalar(segment, token, 1, head_dim, row, row_stride);
      continue;
    }
    if (segment.storage == Storage::F16) {
      f16_to_f32_scalar(reinterpret_cast<const std::uint16_t*>(data + token * segment.stride), row, head_dim);
      continue;
    }
    if (segment.storage == Storage::Table) {
      unpack_bit_stream(data + token * segment.stride, head_dim, segment.bits, codes);
      decode_table_row(segment, token, codes, head_dim, row);
      continue;
    }
    const bool per_token = segment.storage == Storage::PerToken;
    const std::int64_t line = per_token ? token : token / segment.group_size;
    if (per_token) {
      unpack_row(data + line * segment.stride, head_dim, segment.bits, codes);
    } else {
      unpack_block_row(data + line * segment.stride, segment.group_size, head_dim, segment.bits,
                       token % segment.group_size, codes);
    }
    for (std::int64_t d = 0; d < head_dim; ++d) {
      const std::int64_t group =
          line * segment.scale_stride + (per_token ? (segment.channel_offset + d) / segment.group_size : d);
      row[d] = f16_to_f32(segment.scale[group]) * static_cast<float>(codes[d]) + f16_to_f32(segment.group_min[group]);
    }
  }
  if (segment.storage != Storage::Table) return;
  for (std::int64_t i = 0; i < segment.rows->sparse_count; ++i) {
    const SparseElement& element = segment.rows->sparse[i];
    x[element.token * row_stride + element.channel] += element.excess;
  }
}

}  // namespace qs::kernels
