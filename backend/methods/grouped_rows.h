#pragma once

#include <memory>
#include <vector>

#include "backend/methods/channel_groups.h"
#include "backend/methods/kv_store.h"

namespace qs {

/// How the codes of GroupedRows lie in memory: packed rows (pack_bits.h) of 2, 3, 4 or 8 bits, one a token and head; or
/// three levels, five to a byte, over all heads of a token: byte i holds the channels i, i + n, i + 2n, ... of n bytes,
/// digit j being channel j * n + i, so that neighbouring channels come from neighbouring bytes.
enum class CodeContainer { Bits2 = 2, Bits3 = 3, Bits4 = 4, Bits8 = 8, Trits = kernels::kTritBits };

/// Packed tokens whose groups are sets of channels (SKVQ). Codes lie in the original order of the channels, so that
/// neither keys nor queries need permuting: the order appears only in which scale a channel uses.
class GroupedRows final : public TokenStore {
 public:
  /// @param quantizer  must outlive this
  GroupedRows(std::int64_t kv_heads, std::int64_t head_dim, CodeContainer container, const SkvqQuantizer& quantizer);
  /// Quantizes and stores. @param rows  f32 [tokens][kv_heads * head_dim]
  /// @throws Error InvalidArgument when a scale or minimum does not fit f16
  void append(const float* rows, std::int64_t tokens);

  std::int64_t tokens() const override { return tokens_; }
  bool fused() const override { return quantizer_->smooth.empty(); }
  bool rotates() const override { return fused(); }
  void add_segments(std::int64_t head, std::vector<kernels::Segment>& segments, DerivedMinima& derived) const override;
  void decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
              std::int64_t row_stride) const override;
  void add_bytes(CacheStats& stats) const override;

  /// Bytes of the codes of one token.
  static std::int64_t code_bytes(std::int64_t kv_heads, std::int64_t head_dim, CodeContainer container);

 private:
  struct Chunk {
    ExactBuffer codes, scale, group_min;
    std::int64_t tokens = 0;
  };
  struct HeadGroups {
    std::int64_t first = 0, count = 0;
    bool in_sixteens = false;
  };
  void pack(const std::uint8_t* codes, std::uint8_t* packed) const;
  kernels::Segment segment(const Chunk& chunk, std::int64_t head) const;
  std::int64_t parameter_bytes() const { return quantizer_->groups.groups() * bytes_of(quantizer_->store); }

  CodeContainer container_;
  const SkvqQuantizer* quantizer_;
  std::vector<std::int32_t> group_of_;  ///< [kv_heads * head_dim], counted from the lowest group of the head
  std::vector<HeadGroups> heads_;
  std::int64_t token_bytes_, tokens_ = 0;
  std::vector<Chunk> chunks_;
};

}  // namespace qs
