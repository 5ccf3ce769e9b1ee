#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qs {

/// One level of a pyramid: [heads, ceil(tokens / factor), ceil(channels / factor)], f32.
struct PyramidLevel {
  std::int64_t factor = 0;
  at::Tensor min, max, mean;  ///< partial tiles pool the cells they have; NaN stays NaN
};

/// Factors 2, 4, .. until the longer side of (tokens, channels) has at most 128 tiles, at most 256, at least 2.
std::vector<std::int64_t> pyramid_factors(std::int64_t tokens, std::int64_t channels);

/// @param x  [heads, tokens, channels]
/// @param factors  ascending powers of two from 2
std::vector<PyramidLevel> build_pyramid(const at::Tensor& x, const std::vector<std::int64_t>& factors);

}  // namespace qs
