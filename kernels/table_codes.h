#pragma once

#include <cstdint>

#include "kernels/kv_attention.h"

namespace qs::kernels {

/// codes[i] = the index of the level nearest to y[i], |y - level| in f32, the smaller index on ties.
/// @param levels  ascending, at most kTableSize
using NearestLevels = void (*)(const float* y, std::int64_t count, const float* levels, int level_count,
                               std::uint8_t* codes) noexcept;
void nearest_levels_scalar(const float* y, std::int64_t count, const float* levels, int level_count,
                           std::uint8_t* codes) noexcept;

/// Repeats the `count` entries (a power of two) to fill `table` [kTableSize].
void fill_table(const float* entries, std::int64_t count, float* table) noexcept;

/// One token of a Table segment from its codes, without its sparse elements: table[code] * scale + zero, two roundings.
void decode_table_row(const Segment& segment, std::int64_t token, const std::uint8_t* codes, std::int64_t head_dim,
                      float* row) noexcept;

}  // namespace qs::kernels
