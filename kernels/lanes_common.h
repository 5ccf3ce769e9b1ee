#pragma once

// Helpers of the instruction-set files; internal linkage, so that every file has its own copy.

#include <immintrin.h>

#include <cstdint>

namespace qs::kernels {
namespace {

inline float half_to_float(std::uint16_t bits) { return _cvtsh_ss(bits); }

}  // namespace
}  // namespace qs::kernels
