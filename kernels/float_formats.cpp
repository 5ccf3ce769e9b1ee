#include "kernels/float_formats.h"

#include <bit>
#include <cmath>

namespace qs::kernels {
namespace {

/// Rounds |value| to a small format with `mantissa_bits` and exponent bias `bias`; the caller saturates.
/// Returns exponent and mantissa fields together, which may have run past the largest finite code.
std::uint32_t round_magnitude(float magnitude, int mantissa_bits, int bias) noexcept {
  const int smallest_exponent = 1 - bias;
  int exponent = 0;
  std::frexp(magnitude, &exponent);
  exponent -= 1;
  if (exponent < smallest_exponent) exponent = smallest_exponent;
  const float steps = std::nearbyint(std::ldexp(magnitude, mantissa_bits - exponent));
  const auto mantissa = static_cast<std::uint32_t>(steps);
  const std::uint32_t implicit = 1U << mantissa_bits;
  if (mantissa < implicit) return mantissa;
  return (static_cast<std::uint32_t>(exponent + bias) << mantissa_bits) + (mantissa - implicit);
}

std::uint8_t sign_bit(float value) noexcept { return std::signbit(value) ? 0x80 : 0; }

}  // namespace

float f16_to_f32(std::uint16_t bits) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000U) << 16;
  const std::uint32_t exponent = (bits >> 10) & 31U;
  const std::uint32_t mantissa = bits & 0x3FFU;
  if (exponent == 31) {
    const std::uint32_t quiet = mantissa != 0 ? 0x400000U : 0U;
    return std::bit_cast<float>(sign | 0x7F800000U | quiet | (mantissa << 13));
  }
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | ((exponent + 112U) << 23) | (mantissa << 13));
}

std::uint16_t f32_to_f16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000U;
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  std::uint32_t result = 0;
  if (magnitude > 0x7F800000U) {
    result = 0x7E00U | ((magnitude >> 13) & 0x3FFU);
  } else if (magnitude >= 0x477FF000U) {
    result = 0x7C00U;
  } else if (magnitude < 0x38800000U) {
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    result = std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U;
  } else {
    const std::uint32_t odd = (magnitude >> 13) & 1U;
    result = (magnitude - 0x38000000U + 0xFFFU + odd) >> 13;
  }
  return static_cast<std::uint16_t>(sign | result);
}

float bf16_to_f32(std::uint16_t bits) noexcept { return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16); }

std::uint16_t f32_to_bf16(float value) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return static_cast<std::uint16_t>((bits >> 16) | 0x40U);
  return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float round_to_f16(float value) noexcept { return f16_to_f32(f32_to_f16(value)); }

std::uint8_t f32_to_e4m3(float value) noexcept {
  if (std::isnan(value)) return static_cast<std::uint8_t>(sign_bit(value) | 0x7FU);
  const float magnitude = std::fabs(value);
  std::uint32_t code = 0x7EU;
  if (magnitude < 448.0F) code = round_magnitude(magnitude, 3, 7);
  if (code > 0x7EU) code = 0x7EU;
  return static_cast<std::uint8_t>(sign_bit(value) | code);
}

float e4m3_to_f32(std::uint8_t bits) noexcept {
  const int exponent = (bits >> 3) & 15;
  const int mantissa = bits & 7;
  float magnitude = 0.0F;
  if ((bits & 0x7F) == 0x7F) {
    magnitude = std::bit_cast<float>(0x7FC00000U);
  } else if (exponent == 0) {
    magnitude = static_cast<float>(mantissa) * 0x1p-9F;
  } else {
    magnitude = std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
  }
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

std::uint8_t f32_to_e5m2(float value) noexcept {
  if (std::isnan(value)) return static_cast<std::uint8_t>(sign_bit(value) | 0x7FU);
  const float magnitude = std::fabs(value);
  std::uint32_t code = 0x7BU;
  if (magnitude < 57344.0F) code = round_magnitude(magnitude, 2, 15);
  if (code > 0x7BU) code = 0x7BU;
  return static_cast<std::uint8_t>(sign_bit(value) | code);
}

float e5m2_to_f32(std::uint8_t bits) noexcept { return f16_to_f32(static_cast<std::uint16_t>(bits << 8)); }

void f16_to_f32_scalar(const std::uint16_t* from, float* to, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) to[i] = f16_to_f32(from[i]);
}

void f32_to_f16_scalar(const float* from, std::uint16_t* to, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) to[i] = f32_to_f16(from[i]);
}

void bf16_to_f32(const std::uint16_t* from, float* to, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) to[i] = bf16_to_f32(from[i]);
}

void f32_to_bf16(const float* from, std::uint16_t* to, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) to[i] = f32_to_bf16(from[i]);
}

std::int64_t f32_to_e4m3(const float* from, std::uint8_t* to, std::int64_t count) noexcept {
  std::int64_t saturated = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    to[i] = f32_to_e4m3(from[i]);
    if (std::fabs(from[i]) > 448.0F) ++saturated;
  }
  return saturated;
}

std::int64_t f32_to_e5m2(const float* from, std::uint8_t* to, std::int64_t count) noexcept {
  std::int64_t saturated = 0;
  for (std::int64_t i = 0; i < count; ++i) {
    to[i] = f32_to_e5m2(from[i]);
    if (std::fabs(from[i]) > 57344.0F) ++saturated;
  }
  return saturated;
}

void e4m3_to_f32(const std::uint8_t* from, float* to, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) to[i] = e4m3_to_f32(from[i]);
}

void e5m2_to_f32(const std::uint8_t* from, float* to, std::int64_t count) noexcept {
  for (std::int64_t i = 0; i < count; ++i) to[i] = e5m2_to_f32(from[i]);
}

}  // namespace qs::kernels
