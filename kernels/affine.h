#pragma once

#include <cstdint>

namespace qs::kernels {

/// Affine group quantization with a stored minimum (KV specification, A1 and A2):
///   scale = (max - min) / (2^bits - 1), code = rne(clamp((x - min) / scale, 0, 2^bits - 1)), x ~ code * scale + min
/// rne is round half to even. The division is a division, not a product with the reciprocal. A group whose maximum
/// equals its minimum (or whose scale underflows to 0) gets codes 0 and scale 0. Inputs must be finite.
///
/// F32 does every step in f32 without contraction. F16 rounds the result of every elementary operation once to f16; `x`
/// must then hold f16 values. Scale and minimum come out unrounded (F16: as f16 values); rounding them for storage is
/// the caller's next step, so codes always belong to the unrounded parameters.
enum class Compute { F32, F16 };

/// Groups of neighbouring columns (per token: rows are tokens, columns are channels).
struct RowGroups {
  const float* x = nullptr;  ///< [rows][columns]
  std::int64_t rows = 0, columns = 0;
  std::int64_t row_stride = 0;  ///< elements between rows of x
  std::int64_t group_size = 0;  ///< divides columns
  int bits = 0;                 ///< 1..8
  Compute compute = Compute::F32;
  std::uint8_t* codes = nullptr;  ///< [rows][columns]
  float* scale = nullptr;         ///< [rows][columns / group_size]
  float* group_min = nullptr;     ///< [rows][columns / group_size]
};

/// Groups of neighbouring rows of one column (per channel: rows are tokens, columns are channels).
struct ColumnGroups {
  const float* x = nullptr;  ///< [rows][columns]
  std::int64_t rows = 0, columns = 0;
  std::int64_t row_stride = 0;  ///< elements between rows of x
  std::int64_t group_size = 0;  ///< divides rows
  int bits = 0;                 ///< 1..8
  Compute compute = Compute::F32;
  std::uint8_t* codes = nullptr;  ///< [rows][columns]
  float* scale = nullptr;         ///< [rows / group_size][columns]
  float* group_min = nullptr;     ///< [rows / group_size][columns]
};

// The definitions; KernelSet::quantize_rows and quantize_columns are the same, faster.
void quantize_rows_scalar(const RowGroups& args) noexcept;
void quantize_columns_scalar(const ColumnGroups& args) noexcept;

/// A2 with the parameters given, which are the stored (rounded) ones.
/// @param codes  [rows][columns]; scale, group_min as in RowGroups; x receives [rows][columns]
void dequantize_rows(const std::uint8_t* codes, const float* scale, const float* group_min, std::int64_t rows,
                     std::int64_t columns, std::int64_t group_size, Compute compute, float* x) noexcept;
/// @param codes  [rows][columns]; scale, group_min as in ColumnGroups; x receives [rows][columns]
void dequantize_columns(const std::uint8_t* codes, const float* scale, const float* group_min, std::int64_t rows,
                        std::int64_t columns, std::int64_t group_size, Compute compute, float* x) noexcept;

/// Symmetric absmax (S1): scale = max(max|x|, 1e-5) / (2^(bits-1) - 1), code = rne(x / scale). Groups along columns.
/// @param x  [rows][columns], rows `row_stride` apart; codes int8 [rows][columns]; scale [rows][columns / group_size];
/// bits 2..8
void quantize_rows_symmetric(const float* x, std::int64_t rows, std::int64_t columns, std::int64_t row_stride,
                             std::int64_t group_size, int bits, Compute compute, std::int8_t* codes,
                             float* scale) noexcept;
void dequantize_rows_symmetric(const std::int8_t* codes, const float* scale, std::int64_t rows, std::int64_t columns,
                               std::int64_t group_size, Compute compute, float* x) noexcept;

/// Index of the first element that is NaN or infinite, -1 when all are finite.
std::int64_t first_not_finite(const float* x, std::int64_t count) noexcept;

}  // namespace qs::kernels
