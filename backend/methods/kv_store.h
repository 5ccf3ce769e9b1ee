#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "backend/methods/kv_groups.h"
#include "kernels/kv_attention.h"

namespace qs {

class SmallFactor;

/// Bytes that grow to exactly what was asked for, so that memory counted is memory used.
class ExactBuffer {
 public:
  ExactBuffer() = default;
  ExactBuffer(ExactBuffer&& other) noexcept;
  ExactBuffer& operator=(ExactBuffer&& other) noexcept;
  ~ExactBuffer();
  /// Adds `bytes` uninitialised ones and returns the first of them. @throws Error OutOfMemory
  std::byte* grow(std::size_t bytes);
  /// Takes `bytes` out from `offset` on; what follows moves up.
  void erase(std::int64_t offset, std::int64_t bytes);
  const std::byte* data() const { return data_; }
  std::byte* data() { return data_; }
  std::int64_t bytes() const { return static_cast<std::int64_t>(bytes_); }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Minima of symmetric groups as f16 bits, by the address of their scales. They follow from the scales and are not
/// stored.
using DerivedMinima = std::map<const void*, std::vector<std::uint16_t>>;

/// A run of tokens of one layer, keys or values, all KV heads; token-major, so that appending is growing at the end.
class TokenStore {
 public:
  TokenStore(std::int64_t kv_heads, std::int64_t head_dim) : kv_heads_(kv_heads), head_dim_(head_dim) {}
  virtual ~TokenStore() = default;
  virtual std::int64_t tokens() const = 0;
  /// Whether the fused kernels read this store as it lies; else `decode` is the only way in.
  virtual bool fused() const = 0;
  /// Whether the fused kernels can also rotate the keys of this store while they read them.
  virtual bool rotates() const { return false; }
  /// Adds what the kernels need to read this head, in token order. Only when fused().
  /// @param derived  receives what segments point to but the store does not keep; must outlive them
  virtual void add_segments(std::int64_t head, std::vector<kernels::Segment>& segments,
                            DerivedMinima& derived) const = 0;
  /// Where segments hold coordinates instead of channels: what leads back. Null for channels.
  virtual const SmallFactor* factor() const { return nullptr; }
  /// Dequantizes tokens [begin, end) of one head. @param rows  f32 rows, `row_stride` elements apart
  virtual void decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
                      std::int64_t row_stride) const = 0;
  virtual void add_bytes(CacheStats& stats) const = 0;

 protected:
  std::int64_t width() const { return kv_heads_ * head_dim_; }
  std::int64_t kv_heads_, head_dim_;
};

/// Tokens in floating point. At most `capacity` of them when that is positive: then the newest overwrite the oldest.
class FloatRows final : public TokenStore {
 public:
  FloatRows(std::int64_t kv_heads, std::int64_t head_dim, at::ScalarType type, std::int64_t capacity = 0);
  /// @param rows  f32 [tokens][kv_heads * head_dim]. @throws Error InvalidArgument when a value overflows f16
  void append(const float* rows, std::int64_t tokens);
  /// Tokens [begin, end), the oldest being 0. @param rows  receives [end - begin][kv_heads * head_dim]
  void read(std::int64_t begin, std::int64_t end, float* rows) const;
  void clear();
  /// Takes tokens out; those that stay keep their order. Not for rows with a capacity.
  /// @param tokens  ascending
  void erase(const std::vector<std::int64_t>& tokens);

  std::int64_t tokens() const override { return tokens_; }
  bool fused() const override { return type_ != at::kBFloat16; }
  void add_segments(std::int64_t head, std::vector<kernels::Segment>& segments, DerivedMinima& derived) const override;
  void decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
              std::int64_t row_stride) const override;
  void add_bytes(CacheStats& stats) const override;

 private:
  struct Chunk {
    ExactBuffer rows;
    std::int64_t tokens = 0;
  };
  std::int64_t row_bytes() const { return width() * static_cast<std::int64_t>(c10::elementSize(type_)); }
  void write_row(const float* row, std::byte* target) const;
  void read_row(const std::byte* source, float* row, std::int64_t count) const;

  at::ScalarType type_;
  std::int64_t capacity_ = 0, tokens_ = 0;
  std::int64_t oldest_ = 0;  ///< slot of the oldest token once the capacity is reached
  std::vector<Chunk> chunks_;
};

/// Packed tokens: codes, scales and minima in units that are quantized together. Two layouts:
/// - runs: a unit is a token; one group per run of `group` channels of its kv_heads * head_dim values
/// - blocks: a unit is `group` tokens; one group per channel
/// Symmetric codes are stored with 2^(bits-1) added, so that the minimum they imply, -scale * 2^(bits-1), is exact in
/// f16.
class PackedRows final : public TokenStore {
 public:
  enum class Layout { Runs, Blocks };
  PackedRows(std::int64_t kv_heads, std::int64_t head_dim, Layout layout, std::int64_t group,
             const GroupQuantizer& quantizer);
  /// Quantizes and stores. @param rows  f32 [tokens][kv_heads * head_dim], whole units
  /// @throws Error InvalidArgument when a scale or minimum does not fit f16
  void append(const float* rows, std::int64_t tokens);
  /// Takes whole units out. @param begin, tokens  multiples of a unit's tokens
  void erase(std::int64_t begin, std::int64_t tokens);
  /// Quantizes the unit that begins at token `begin` anew from `rows`.
  void replace(std::int64_t begin, const float* rows);

  std::int64_t tokens() const override { return tokens_; }
  bool fused() const override;
  void add_segments(std::int64_t head, std::vector<kernels::Segment>& segments, DerivedMinima& derived) const override;
  void decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
              std::int64_t row_stride) const override;
  void add_bytes(CacheStats& stats) const override;

 private:
  struct Chunk {
    ExactBuffer codes, scale, group_min;
    std::int64_t units = 0;
  };
  struct Target {
    std::byte *codes, *scale, *group_min;
  };
  std::int64_t unit_tokens() const { return layout_ == Layout::Blocks ? group_ : 1; }
  std::int64_t head_code_bytes() const;  ///< of one head in one unit
  std::int64_t unit_parameters() const;  ///< scales of one unit
  bool encode(const float* rows, std::int64_t units, const Target& target) const;
  void check_stored(bool fits, const Target& target, std::int64_t units);
  void pack(const std::uint8_t* codes, std::int64_t units, std::byte* packed) const;
  void decode_unit(const Chunk& chunk, std::int64_t unit, std::int64_t head, std::uint8_t* codes, float* rows) const;
  void read_parameters(const ExactBuffer& buffer, std::int64_t unit, std::int64_t head, float* by_channel) const;
  float symmetric_offset() const { return static_cast<float>(1 << (quantizer_.bits - 1)); }

  Layout layout_;
  std::int64_t group_, tokens_ = 0;
  GroupQuantizer quantizer_;
  bool minima_fit_ = true;  ///< symmetric: scale * 2^(bits-1) is a finite f16 everywhere
  std::vector<Chunk> chunks_;
};

/// Where the tokens of the stores stand in the sequence, and how keys that are held before rotation are rotated.
struct TokenPositions {
  const std::int64_t* original = nullptr;  ///< [tokens], ascending; null: token i has position i (nothing was dropped)
  /// RotationTable::Rows::values, at least up to the newest position; null: keys are rotated already.
  const float* rotation = nullptr;
  std::int64_t half = 0;  ///< RotationTable::Rows::half
};

/// Softmax weights of one step, for methods whose choices depend on attention.
struct AttentionWeights {
  std::int64_t first_token = 0;  ///< set by who asks: weights of this token and later ones are wanted
  std::vector<float> weights;    ///< receives [heads][tokens - first_token]; 0 beyond a sliding window
};

/// Attention of one new query per head over the stores of a layer, in token order; keys and values may be cut
/// differently. The score rules of `shape` hold: scale, soft cap, sliding window. Keys that are not rotated are rotated
/// while a tile of them is decoded. Tokens are shared out over the threads when there are enough of them.
/// @param query  f32 [heads][head_dim], rotated, not yet scaled; out receives f32 [heads][head_dim]
/// @param weights  null unless the caller needs them
/// @param dead  [tokens], not 0 where no query looks; null when all tokens are seen
void attend_stores(const std::vector<const TokenStore*>& keys, const std::vector<const TokenStore*>& values,
                   const CacheShape& shape, const float* query, float* out, AttentionWeights* weights = nullptr,
                   const TokenPositions& positions = {}, const std::uint8_t* dead = nullptr);

/// f32 [kv_heads, tokens, head_dim] of all stores in order.
at::Tensor materialize_stores(const std::vector<const TokenStore*>& stores, const CacheShape& shape);

}  // namespace qs
