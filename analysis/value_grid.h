#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "backend/types/kv_overlay.h"

namespace qs::analysis {

/// How the values of a tensor are distributed, and where a quantizer put them.
struct ValueGrid {
  double low = 0.0, high = 0.0;             ///< of the finite values
  std::vector<std::int64_t> original;       ///< count by bin; bins split low..high evenly
  std::vector<std::int64_t> reconstructed;  ///< the same bins; empty without a reconstruction
  std::vector<float> levels;                ///< distinct reconstructed values of quantized elements, ascending
  std::int64_t distinct_levels =
      0;  ///< how many there are; beyond max_levels, `levels` has so many of them, evenly by rank
  std::int64_t count = 0, full_precision = 0;  ///< elements; of them left in full precision (code 255)
  std::int64_t not_finite = 0;                 ///< NaN and infinities, in no bin
  double mean = 0.0, deviation = 0.0, absmax = 0.0;
};

/// @param reconstructed, codes  same length as `original`, or empty
/// @param bins  at least 1
ValueGrid value_grid(std::span<const float> original, std::span<const float> reconstructed,
                     std::span<const float> codes, int bins, int max_levels = 512);

/// Elements of [kv_heads, tokens, head_dim] in these half-open ranges.
struct ElementRange {
  std::int64_t head_begin = 0, head_end = 0, token_begin = 0, token_end = 0, dim_begin = 0, dim_end = 0;
};

/// Where the quantizer of a range of elements may put them. What it does not have is NaN.
struct QuantizerGrid {
  std::int64_t groups = 0;    ///< scale groups that the range touches
  std::vector<float> levels;  ///< every level of them, ascending; empty when they are more than max_groups or not known
  /// Ends of the clip range: widest over the groups, and narrowest.
  float low = std::numeric_limits<float>::quiet_NaN(), high = low, narrow_low = low, narrow_high = low;
  std::int64_t coded = 0;            ///< elements with a code
  std::int64_t outside = 0;          ///< of them beyond their own clip range
  std::int64_t picked = 0;           ///< elements kept in full precision because they are outliers
  std::vector<std::int64_t> codes;   ///< how many elements hold each code
  std::vector<std::int64_t> widths;  ///< and how many a code of 0, 1, 2 ... bits; empty without levels
  /// Outermost element that was not picked below and above, when outliers were picked there.
  float inlier_low = std::numeric_limits<float>::quiet_NaN(), inlier_high = inlier_low;
};
/// @param original, codes  [kv_heads, tokens, head_dim]; codes 255: full precision
QuantizerGrid quantizer_grid(const KvOverlay& overlay, const TensorView& original, const TensorView& codes,
                             const ElementRange& range, std::int64_t max_groups = 24);

}  // namespace qs::analysis
