#pragma once

#include <cstdint>

#include "kernels/kv_grouped.h"

namespace qs::kernels {

struct KernelSet;

/// Decode attention of one KV head straight from its packed cache: nothing is unpacked to memory, the cache is read
/// once for up to four query heads at a time.

/// How the tokens of a segment are stored. head_dim is a multiple of 8. Scale and minimum are f16 bits.
enum class Storage {
  F32,         ///< rows of head_dim f32
  F16,         ///< rows of head_dim f16
  PerToken,    ///< one packed row (pack_bits.h) a token; groups along channels
  PerChannel,  ///< packed blocks (pack_bits.h) of group_size tokens; one scale a channel and block
  Grouped,     ///< one packed row a token; groups are sets of channels: see Segment::grouped
  Table,       ///< one bit stream (pack_bits.h) a token, codes of a table; see TableRows
};

/// An element that a row of table codes does not hold: what it has beyond the value that its code decodes to.
struct SparseElement {
  std::uint16_t token = 0;    ///< of the segment
  std::uint16_t channel = 0;  ///< of the head
  float excess = 0.0F;
};

/// What a segment of table codes needs beside its rows: x = table[code] * scale + zero. A segment with per-channel
/// factors has them here; one with factors a token has f16 `Segment::scale` and `Segment::group_min`, one each a token,
/// `scale_stride` apart.
struct TableRows {
  const float* table = nullptr;          ///< [kTableSize]: the 2^bits entries, repeated to fill it
  const float* channel_scale = nullptr;  ///< [head_dim], or null: factors a token
  const float* channel_zero = nullptr;   ///< [head_dim], as channel_scale
  /// Rotation of each token before it meets the query: [tokens][2][half], cosines then sines, channel i < half together
  /// with channel i + half; channels from 2 * half on do not rotate. Null: none does. Only for keys.
  const float* rotation = nullptr;
  std::int64_t half = 0;
  const SparseElement* sparse = nullptr;  ///< elements of this head in token order; channels of a token are distinct
  std::int64_t sparse_count = 0;
};
inline constexpr std::int64_t kTableSize = 32;

/// A run of tokens of one KV head, keys or values.
struct Segment {
  Storage storage = Storage::F32;
  int bits = 0;                              ///< 2, 3, 4 or 8, Table: 2 to 5; unused for F32 and F16
  std::int64_t tokens = 0;                   ///< PerChannel: a multiple of group_size
  const void* data = nullptr;                ///< first token's row, or first block
  std::int64_t stride = 0;                   ///< bytes from token to token; PerChannel: from block to block
  const std::uint16_t* scale = nullptr;      ///< PerToken: [token][group] of this head; PerChannel: [block][head_dim]
  const std::uint16_t* group_min = nullptr;  ///< as scale
  std::int64_t scale_stride = 0;             ///< elements from token to token; PerChannel: from block to block
  std::int64_t group_size = 0;               ///< PerToken: channels; PerChannel: tokens
  /// PerToken: channels of the head's first group that belong to earlier heads, when groups run over the heads of a
  /// token (channel d of the head belongs to group (channel_offset + d) / group_size). 0 when group_size divides
  /// head_dim.
  std::int64_t channel_offset = 0;
  GroupedParameters grouped = {};   ///< Grouped: in place of scale, group_min and group_size
  const TableRows* rows = nullptr;  ///< Table only; such a segment has at most kTileTokens tokens
};

/// Arithmetic of the products with codes. F32 folds the scale into the query (the attention weight) and multiplies in
/// f32. Fixed16 rounds the folded query of a block (the folded weights of a tile) to 15 bits and sign with one step for
/// all, and multiplies and adds in integers: at most 2^-16 of the largest folded value is lost a term. Sets without a
/// faster integer form and rows that are not packed use F32.
enum class Arithmetic { F32, Fixed16 };

/// Unnormalised softmax sums of some tokens, for merging. A fresh one has max = -infinity, sum = 0, out = 0.
struct AttentionPartial {
  float* max = nullptr;  ///< [queries] running maximum of the scores
  float* sum = nullptr;  ///< [queries] of exp(score - max)
  float* out = nullptr;  ///< [queries][head_dim] of exp(score - max) * value
};

/// Rotation of keys that are held before it (KV specification 1.7), for segments of Storage::Grouped.
struct KeyRotation {
  const float* table = nullptr;             ///< [position][2][half]: cosines, then sines
  std::int64_t half = 0;                    ///< pairs that rotate; channels from 2 * half on stay as they are
  const std::int64_t* positions = nullptr;  ///< by token of the sequence; null: a token's position is its number
  const float* at(std::int64_t token) const noexcept {
    return table + (positions == nullptr ? token : positions[token]) * 2 * half;
  }
};

struct HeadAttention {
  const float* query = nullptr;     ///< [queries][head_dim], already multiplied by the scale of the scores
  std::int64_t queries = 0;         ///< query heads that read this KV head
  std::int64_t head_dim = 0;        ///< a multiple of 8, at most kMaxHeadDim
  const Segment* keys = nullptr;    ///< segments in token order
  const Segment* values = nullptr;  ///< segments in token order, as many tokens in all; may be cut elsewhere
  std::int64_t key_segments = 0, value_segments = 0;
  std::int64_t token_begin = 0, token_end = 0;  ///< tokens to add; lets threads share a long sequence
  std::int64_t key_first = 0, value_first = 0;  ///< token of the sequence that the first segment begins with
  const KeyRotation* key_rotation = nullptr;    ///< all key segments are Grouped and rotated while they are read
  float score_softcap = 0.0F;                   ///< cap * tanh(score / cap) before the softmax; 0: off
  Arithmetic arithmetic = Arithmetic::F32;
  /// Not 0: a token that no query sees, indexed by the token of the sequence; null when all are seen. At least one must
  /// be.
  const std::uint8_t* dead = nullptr;
  /// Receives the scores of the tokens from score_begin on, [queries][score_stride]; null when nobody asks.
  float* scores = nullptr;
  std::int64_t score_stride = 0, score_begin = 0;
};
inline constexpr std::int64_t kMaxHeadDim = 512;

/// Sets max to -infinity, sum and out to 0.
void reset_partial(const AttentionPartial& partial, std::int64_t queries, std::int64_t head_dim) noexcept;
/// Adds tokens [token_begin, token_end) to `partial`, in one pass over tiles of tokens.
void attend_head(const KernelSet& set, const HeadAttention& args, const AttentionPartial& partial) noexcept;
/// Adds `other` to `partial`.
void merge_partial(const AttentionPartial& partial, const AttentionPartial& other, std::int64_t queries,
                   std::int64_t head_dim) noexcept;
/// out = partial.out / partial.sum. @param out  [queries][head_dim]
void finish_attention(const AttentionPartial& partial, std::int64_t queries, std::int64_t head_dim,
                      float* out) noexcept;

/// What attention sees of a segment. @param x  [tokens][head_dim], rows `row_stride` elements apart
void decode_segment(const Segment& segment, std::int64_t head_dim, float* x, std::int64_t row_stride) noexcept;

// ---- the parts a kernel set supplies; attend_head calls them on tiles ----

inline constexpr std::int64_t kTileTokens = 128;
inline constexpr std::int64_t kTileQueries = 4;
inline constexpr std::int64_t kTilePadding = 4;  ///< floats readable past the last row of scores or weights

/// Tokens [begin, begin + count) of one segment, count <= kTileTokens, for queries <= kTileQueries. PerChannel: within
/// one block.
struct TileArgs {
  const Segment* segment = nullptr;
  std::int64_t begin = 0, count = 0;
  std::int64_t queries = 0, head_dim = 0;
  Arithmetic arithmetic = Arithmetic::F32;
  const KeyRotation* rotation = nullptr;  ///< keys: null when they are rotated already
  std::int64_t token = 0;                 ///< number of token `begin` in the sequence
};
/// scores[i * kTileTokens + t] = query i times key begin + t. @param query  [queries][head_dim]
using KeyScores = void (*)(const TileArgs& tile, const float* query, float* scores) noexcept;
/// out[i][d] += sum over t of weights[i * kTileTokens + t] * value[begin + t][d]; weights lie in [0, 1]
using ValueSums = void (*)(const TileArgs& tile, const float* weights, float* out) noexcept;
/// Replaces scores[t] by exp(scores[t] - max) and returns their sum.
using ExpSum = float (*)(float* scores, std::int64_t count, float max) noexcept;

void key_scores_scalar(const TileArgs& tile, const float* query, float* scores) noexcept;
void value_sums_scalar(const TileArgs& tile, const float* weights, float* out) noexcept;
/// Table segments: the definition.
void table_scores_scalar(const TileArgs& tile, const float* query, float* scores) noexcept;
void table_sums_scalar(const TileArgs& tile, const float* weights, float* out) noexcept;
/// The sparse part of a table segment, added to scores (out) that the dense part has already filled.
void add_sparse_scores(const TileArgs& tile, const float* query, float* scores) noexcept;
void add_sparse_sums(const TileArgs& tile, const float* weights, float* out) noexcept;
float exp_sum_scalar(float* scores, std::int64_t count, float max) noexcept;

}  // namespace qs::kernels
