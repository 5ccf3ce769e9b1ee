#include "kernels/float_formats.h"
#include "kernels/kv_attention.h"
#include "kernels/kv_grouped.h"
#include "kernels/kv_rows.h"
#include "kernels/pack_bits.h"

namespace qs::kernels {

float read_parameter(ParameterFormat format, const void* from, std::int64_t index) noexcept {
  switch (format) {
    case ParameterFormat::F16:
      return f16_to_f32(static_cast<const std::uint16_t*>(from)[index]);
    case ParameterFormat::F32:
      return static_cast<const float*>(from)[index];
    case ParameterFormat::E4M3:
      return e4m3_to_f32(static_cast<const std::uint8_t*>(from)[index]);
    case ParameterFormat::E5M2:
      return e5m2_to_f32(static_cast<const std::uint8_t*>(from)[index]);
  }
  return 0.0F;
}

void unpack_grouped_row(const Segment& segment, std::int64_t token, std::int64_t head_dim,
                        std::uint8_t* codes) noexcept {
  const auto* const row = static_cast<const std::uint8_t*>(segment.data) + token * segment.stride;
  if (segment.bits != kTritBits) return unpack_row(row, head_dim, segment.bits, codes);
  constexpr int kPowers[] = {1, 3, 9, 27, 81};
  const std::int64_t bytes = segment.grouped.plane_bytes;
  for (std::int64_t d = 0; d < head_dim; ++d) {
    const std::int64_t channel = segment.grouped.first_channel + d;
    codes[d] = static_cast<std::uint8_t>(row[channel % bytes] / kPowers[channel / bytes] % 3);
  }
}

void decode_grouped_scalar(const Segment& segment, std::int64_t begin, std::int64_t count, std::int64_t head_dim,
                           float* rows, std::int64_t row_stride) noexcept {
  const GroupedParameters& parameters = segment.grouped;
  std::uint8_t codes[kMaxHeadDim];
  for (std::int64_t t = 0; t < count; ++t) {
    unpack_grouped_row(segment, begin + t, head_dim, codes);
    const std::int64_t line = (begin + t) * parameters.groups + parameters.first_group;
    float* const row = rows + t * row_stride;
    for (std::int64_t d = 0; d < head_dim; ++d) {
      const std::int64_t at = line + parameters.group_of[d];
      row[d] = static_cast<float>(codes[d]) * read_parameter(parameters.format, parameters.scale, at) +
               read_parameter(parameters.format, parameters.group_min, at);
    }
  }
}

void grouped_scores_scalar(const TileArgs& tile, const float* query, float* scores) noexcept {
  float row[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    decode_grouped_scalar(*tile.segment, tile.begin + t, 1, tile.head_dim, row, tile.head_dim);
    if (tile.rotation != nullptr) {
      rotate_rows_scalar({.rows = row,
                          .count = 1,
                          .row_stride = tile.head_dim,
                          .half = tile.rotation->half,
                          .table = tile.rotation->at(tile.token + t)});
    }
    for (std::int64_t i = 0; i < tile.queries; ++i) {
      float sum = 0.0F;
      for (std::int64_t d = 0; d < tile.head_dim; ++d) sum += query[i * tile.head_dim + d] * row[d];
      scores[i * kTileTokens + t] = sum;
    }
  }
}

void grouped_sums_scalar(const TileArgs& tile, const float* weights, float* out) noexcept {
  float row[kMaxHeadDim];
  for (std::int64_t t = 0; t < tile.count; ++t) {
    decode_grouped_scalar(*tile.segment, tile.begin + t, 1, tile.head_dim, row, tile.head_dim);
    for (std::int64_t i = 0; i < tile.queries; ++i)
      for (std::int64_t d = 0; d < tile.head_dim; ++d)
        out[i * tile.head_dim + d] += weights[i * kTileTokens + t] * row[d];
  }
}

}  // namespace qs::kernels
