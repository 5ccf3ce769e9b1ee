#pragma once

#include <cstdint>

namespace qs::kernels {

/// Rotary embedding of decoded keys (KV specification 1.7), in place: for i < half
///   row[i] = row[i] * cosine[i] - row[i + half] * sine[i],  row[i + half] = row[i + half] * cosine[i] + row[i] *
///   sine[i]
/// Every step is rounded to f32, without contraction: all kernel sets give the same bits.
struct RotateRows {
  float* rows = nullptr;  ///< [count], `row_stride` elements apart
  std::int64_t count = 0, row_stride = 0;
  std::int64_t half = 0;                    ///< pairs that rotate; channels from 2 * half on stay as they are
  const float* table = nullptr;             ///< [position][2][half]: cosines, then sines
  const std::int64_t* positions = nullptr;  ///< [count]; null: row t has position first_position + t
  std::int64_t first_position = 0;
  const float* at(std::int64_t row) const noexcept {
    return table + (positions == nullptr ? first_position + row : positions[row]) * 2 * half;
  }
};
using Rotate = void (*)(const RotateRows& args) noexcept;
void rotate_rows_scalar(const RotateRows& args) noexcept;

}  // namespace qs::kernels
