#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace qs::analysis {

/// How the values of a tensor are distributed, and where a quantizer put them.
struct ValueGrid {
  double low = 0.0, high = 0.0;                ///< of the finite values
  std::vector<std::int64_t> original;          ///< count by bin; bins split low..high evenly
  std::vector<std::int64_t> reconstructed;     ///< the same bins; empty without a reconstruction
  std::vector<float> levels;                   ///< distinct reconstructed values of quantized elements, ascending
  std::int64_t distinct_levels = 0;            ///< how many there are; `levels` stops at max_levels
  std::int64_t count = 0, full_precision = 0;  ///< elements; of them left in full precision (code 255)
  std::int64_t not_finite = 0;                 ///< NaN and infinities, in no bin
  double mean = 0.0, deviation = 0.0, absmax = 0.0;
};

/// @param reconstructed, codes  same length as `original`, or empty
/// @param bins  at least 1
ValueGrid value_grid(std::span<const float> original, std::span<const float> reconstructed,
                     std::span<const float> codes, int bins, int max_levels = 512);

}  // namespace qs::analysis
