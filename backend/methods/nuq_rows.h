#pragma once

#include <vector>

#include "backend/methods/kv_store.h"
#include "backend/methods/kvquant.h"

namespace qs {

/// Sparse elements of a tile of tokens, sorted by head.
struct SparseTile {
  std::vector<kernels::SparseElement> elements;
  std::vector<std::int64_t> head_begin;  ///< [kv_heads + 1]
};

/// Tokens of one side as KVQuant keeps them. Dense: a bit stream of codes a token and head (pack_bits.h); values have
/// midpoint and half-range a token. Sparse: compressed by token, a u32 where the token's elements end in its chunk, and
/// a u16 channel with an f16 value for each, channels ascending. Thresholds and tables belong to the method.
class NuqRows final : public TokenStore {
 public:
  NuqRows(std::int64_t kv_heads, std::int64_t head_dim, KvRole role, const NuqCoding& coding,
          const KvquantSettings& settings);
  /// Codes each token on its own. @param rows  f32 [tokens][kv_heads * head_dim], exact in f16
  void append(const float* rows, std::int64_t tokens);

  std::int64_t tokens() const override { return tokens_; }
  bool fused() const override { return false; }  ///< by its own segments only, see tile_segment
  void add_segments(std::int64_t head, std::vector<kernels::Segment>& segments, DerivedMinima& derived) const override;
  void decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
              std::int64_t row_stride) const override;
  void add_bytes(CacheStats& stats) const override;
  std::int64_t constant_bytes() const;  ///< thresholds and tables, once a layer

  /// Tokens [begin, begin + count) lie in one tile when begin is a multiple of kTileTokens and count is at most that.
  static constexpr std::int64_t kChunkTokens = 8 * kernels::kTileTokens;
  /// Whether the kernels read tiles of this store: not when midpoints are kept in f32.
  bool has_tiles() const { return role_ == KvRole::Key || settings_.store == GroupStore::F16; }
  void gather_sparse(std::int64_t begin, std::int64_t count, SparseTile& tile) const;
  /// One head of a tile. @param rows  receives what the segment points to; rotation is the caller's
  kernels::Segment tile_segment(std::int64_t head, std::int64_t begin, std::int64_t count, const SparseTile& tile,
                                kernels::TableRows& rows) const;

 private:
  struct Chunk {
    ExactBuffer codes, middle, half, ends, channels, values;
    std::int64_t tokens = 0;
  };
  struct Outlier {
    std::uint16_t channel = 0;
    float value = 0.0f;
  };
  struct Row;
  std::int64_t row_bytes() const { return kv_heads_ * head_bytes_; }
  std::int64_t parameter_bytes() const { return settings_.store == GroupStore::F16 ? 2 : 4; }
  void append_to_chunk(Chunk& chunk, const float* rows, std::int64_t tokens);
  void encode(const float* x, Row& row, std::uint8_t* packed, std::vector<Outlier>& outliers) const;
  void choose_key_outliers(const float* x, Row& row) const;
  void choose_value_outliers(const float* x, Row& row) const;
  void choose_codes(const float* x, Row& row) const;
  /// Midpoint and half-range of a value token.
  std::pair<float, float> factors(const Chunk& chunk, std::int64_t token) const;
  std::pair<std::int64_t, std::int64_t> sparse_range(const Chunk& chunk, std::int64_t token) const;

  KvRole role_;
  NuqCoding coding_;
  KvquantSettings settings_;
  std::int64_t head_bytes_, tokens_ = 0;
  std::uint8_t zero_code_;
  std::vector<float> table_;            ///< [kTableSize]
  std::vector<float> zero_code_value_;  ///< keys: what the zero code decodes to, a channel
  std::vector<std::uint16_t> head_of_channel_;
  std::vector<Chunk> chunks_;
};

}  // namespace qs
