#pragma once

#include <cstdint>

namespace qs::kernels {

/// 16- and 8-bit floating-point formats as raw bits. Every conversion rounds to nearest, ties to even.
/// NaN stays NaN (quiet), -0 keeps its sign.

float f16_to_f32(std::uint16_t bits) noexcept;
std::uint16_t f32_to_f16(float value) noexcept;  ///< overflow becomes infinity, as in IEEE 754
float bf16_to_f32(std::uint16_t bits) noexcept;
std::uint16_t f32_to_bf16(float value) noexcept;
/// The f16 nearest to `value`, as f32.
float round_to_f16(float value) noexcept;

/// 1 sign, 4 exponent (bias 7), 3 mantissa bits; largest finite 448; S.1111.111 is the only NaN.
/// Values beyond the range, infinities among them, become +-448.
std::uint8_t f32_to_e4m3(float value) noexcept;
float e4m3_to_f32(std::uint8_t bits) noexcept;
/// 1 sign, 5 exponent (bias 15), 2 mantissa bits; largest finite 57344. Values beyond the range, infinities among them,
/// become +-57344; reading knows the infinities.
std::uint8_t f32_to_e5m2(float value) noexcept;
float e5m2_to_f32(std::uint8_t bits) noexcept;

/// Array forms of [count] elements. `from` and `to` must not overlap. f16 and bf16 arrays are converted by the kernel
/// set in use (KernelSet::f16_to_f32 ...); these are its definition.
void f16_to_f32_scalar(const std::uint16_t* from, float* to, std::int64_t count) noexcept;
void f32_to_f16_scalar(const float* from, std::uint16_t* to, std::int64_t count) noexcept;
void bf16_to_f32(const std::uint16_t* from, float* to, std::int64_t count) noexcept;
void f32_to_bf16(const float* from, std::uint16_t* to, std::int64_t count) noexcept;
/// @return how many values lay beyond the largest finite value and were saturated
std::int64_t f32_to_e4m3(const float* from, std::uint8_t* to, std::int64_t count) noexcept;
std::int64_t f32_to_e5m2(const float* from, std::uint8_t* to, std::int64_t count) noexcept;
void e4m3_to_f32(const std::uint8_t* from, float* to, std::int64_t count) noexcept;
void e5m2_to_f32(const std::uint8_t* from, float* to, std::int64_t count) noexcept;

}  // namespace qs::kernels
