#pragma once

#include <cstdint>

namespace qs::kernels {

/// Packed tokens whose groups are sets of channels that may lie anywhere (SKVQ). Codes lie in the order of the
/// channels; which scale a channel uses is a table that all tokens share.

enum class ParameterFormat { F16, F32, E4M3, E5M2 };

/// Width in GroupedParameters-segments of three levels, five to a byte: byte i of a token's plane_bytes = n bytes holds
/// the channels i, n + i, 2n + i, 3n + i, 4n + i of all heads as digits of base 3, the first being the lowest.
inline constexpr int kTritBits = 1;

/// What Segment::scale, group_min and group_size are for other packed rows. Segment::data points at the head's packed
/// row of the first token; with kTritBits at the token's first byte.
struct GroupedParameters {
  const void* scale = nullptr;      ///< [token][groups] of `format`, densely packed
  const void* group_min = nullptr;  ///< as scale
  ParameterFormat format = ParameterFormat::F16;
  std::int64_t groups = 0;                 ///< of a token
  std::int64_t first_group = 0;            ///< lowest group that the head's channels belong to
  std::int64_t head_groups = 0;            ///< from there on, up to the highest
  const std::int32_t* group_of = nullptr;  ///< [head_dim] group of each channel of the head, counted from first_group
  bool in_sixteens = false;                ///< channels 16 i .. 16 i + 15 of the head always share a group
  std::int64_t first_channel = 0;          ///< kTritBits: of the head
  std::int64_t plane_bytes = 0;            ///< kTritBits: bytes of a token
};

struct Segment;

float read_parameter(ParameterFormat format, const void* from, std::int64_t index) noexcept;
/// Code of channel `d` of the head in token `token` of a grouped segment.
void unpack_grouped_row(const Segment& segment, std::int64_t token, std::int64_t head_dim,
                        std::uint8_t* codes) noexcept;

/// code * scale + group_min of tokens [begin, begin + count), each step rounded to f32: all kernel sets give the same
/// bits. @param rows  [count][head_dim], `row_stride` elements apart
using DecodeGrouped = void (*)(const Segment& segment, std::int64_t begin, std::int64_t count, std::int64_t head_dim,
                               float* rows, std::int64_t row_stride) noexcept;
void decode_grouped_scalar(const Segment& segment, std::int64_t begin, std::int64_t count, std::int64_t head_dim,
                           float* rows, std::int64_t row_stride) noexcept;

struct TileArgs;
// Forms of KeyScores and ValueSums (kv_attention.h) for grouped segments.
void grouped_scores_scalar(const TileArgs& tile, const float* query, float* scores) noexcept;
void grouped_sums_scalar(const TileArgs& tile, const float* weights, float* out) noexcept;

}  // namespace qs::kernels
