#pragma once

#include "backend/methods/kv_store.h"
#include "backend/methods/qaq_quantizer.h"

namespace qs {

/// Packed tokens of QAQ. A vector (a head of a token, or a whole token of the layer) is a record of its own length:
///
///     outliers   index u16 and value, ascending; bit 15 of an index marks the last one. None when the ratio is 0
///     scale, mean (not when symmetric)
///     codes      of the other elements, fields of the vector's width, filled up to a byte
///
/// Values, scales and means are f16, or f32 with store=f32. Widths lie apart, 4 bits each (8 where 0 and 16 may both
/// occur); every 64th record has its offset in an index.
class QaqRows final : public TokenStore {
 public:
  QaqRows(std::int64_t kv_heads, std::int64_t head_dim, const QaqSettings& settings);
  std::int64_t lanes() const { return lanes_; }  ///< vectors of a token
  /// Quantizes and stores. @param rows  f32 [tokens][kv_heads * head_dim]
  /// @param tolerance  [tokens][lanes]; not read unless widths follow attention
  void append(const float* rows, const double* tolerance, std::int64_t tokens);

  std::int64_t tokens() const override { return tokens_; }
  bool fused() const override { return false; }
  void add_segments(std::int64_t, std::vector<kernels::Segment>&, DerivedMinima&) const override {}
  void decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
              std::int64_t row_stride) const override;
  void add_bytes(CacheStats& stats) const override;
  int width_of(std::int64_t token, std::int64_t lane) const;  ///< bits of a code

 private:
  /// The records of one lane for up to kPieceTokens tokens.
  struct Piece {
    ExactBuffer records, widths, index;
    std::int64_t tokens = 0, outliers = 0;
  };
  class Reader;
  void append_to(Piece& piece, const float* vectors, std::int64_t stride, const double* tolerance,
                 std::int64_t tokens) const;
  int width_in(const Piece& piece, std::int64_t token) const;
  std::int64_t value_bytes() const { return settings_.value_bytes(); }

  QaqSettings settings_;
  std::int64_t lanes_, vector_, tokens_ = 0;
  std::vector<Piece> pieces_;  ///< [piece][lane]
};

/// Bytes that a lane takes when all vectors have the largest width and no ties among outliers.
std::int64_t qaq_lane_bytes(const QaqSettings& settings, std::int64_t vector, std::int64_t tokens);

}  // namespace qs
