#pragma once

#include <cmath>
#include <cstdint>

/// Elements of packed rows, for device code; plain C++ elsewhere, so that a test can hold them against the functions of
/// pack_bits.h and float_formats.h on a machine without a device.

#if defined(__CUDACC__)
#define QS_HOST_DEVICE __host__ __device__
#else
#define QS_HOST_DEVICE
#endif

namespace qs::kernels::cuda {

/// Code `column` of a packed row of `columns` codes of 2, 3, 4 or 8 bits.
QS_HOST_DEVICE inline int row_code(const std::uint8_t* row, std::int64_t columns, int bits, std::int64_t column) {
  const int width = bits == 3 ? 2 : bits;
  const std::int64_t bit = column * width;
  int code = (row[bit / 8] >> (bit % 8)) & ((1 << width) - 1);
  if (bits == 3) code |= ((row[columns / 4 + column / 8] >> (column % 8)) & 1) << 2;
  return code;
}

/// Code `index` of a bit stream, 1 to 8 bits. Reads one byte beyond the code's first only when it reaches there.
QS_HOST_DEVICE inline int stream_code(const std::uint8_t* stream, int bits, std::int64_t index) {
  const std::int64_t bit = index * bits;
  const int shift = static_cast<int>(bit % 8);
  int word = stream[bit / 8];
  if (shift + bits > 8) word |= stream[bit / 8 + 1] << 8;
  return (word >> shift) & ((1 << bits) - 1);
}

/// Level of `channel` (over all heads) in a token of five-level bytes; see kTritBits in kv_grouped.h.
QS_HOST_DEVICE inline int trit_code(const std::uint8_t* token, std::int64_t plane_bytes, std::int64_t channel) {
  int byte = token[channel % plane_bytes];
  for (std::int64_t digit = channel / plane_bytes; digit > 0; --digit) byte /= 3;
  return byte % 3;
}

QS_HOST_DEVICE inline float small_float(int exponent, int mantissa, int mantissa_bits, int bias, bool negative) {
  const float fraction = static_cast<float>(mantissa) / static_cast<float>(1 << mantissa_bits);
  const float value = exponent == 0 ? ldexpf(fraction, 1 - bias) : ldexpf(1.0F + fraction, exponent - bias);
  return negative ? -value : value;
}

/// Four exponent bits, no infinities; 0x7f and 0xff are not numbers and never stored.
QS_HOST_DEVICE inline float from_e4m3(std::uint8_t bits) {
  return small_float((bits >> 3) & 15, bits & 7, 3, 7, (bits & 0x80) != 0);
}

/// Five exponent bits; infinities and not-a-numbers are never stored.
QS_HOST_DEVICE inline float from_e5m2(std::uint8_t bits) {
  return small_float((bits >> 2) & 31, bits & 3, 2, 15, (bits & 0x80) != 0);
}

}  // namespace qs::kernels::cuda
