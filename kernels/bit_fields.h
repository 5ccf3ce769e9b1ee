#pragma once

#include <cstdint>

namespace qs::kernels {

/// Fields of 0 to 16 bits one after the other, from bit 0 of byte 0 upwards; the rest of the last byte is 0. The width
/// may change from run to run (mixed-precision vectors); eight fields always begin and end on a byte.
std::int64_t field_bytes(std::int64_t count, int bits) noexcept;
void pack_fields(const std::uint16_t* codes, std::int64_t count, int bits, std::uint8_t* packed) noexcept;
void unpack_fields(const std::uint8_t* packed, std::int64_t count, int bits, std::uint16_t* codes) noexcept;

/// A run of fields that stand for (code - 2^(bits-1)) * scale + mean.
struct FieldRun {
  const std::uint8_t* packed = nullptr;
  std::int64_t count = 0;
  int bits = 0;  ///< 1 to 15
  float scale = 0.0F, mean = 0.0F;
};
/// x[i] = value of field i; a subtraction, a product and a sum that are each rounded, the same in all sets.
using DecodeFields = void (*)(const FieldRun& run, float* x) noexcept;

void decode_fields_scalar(const FieldRun& run, float* x) noexcept;

}  // namespace qs::kernels
