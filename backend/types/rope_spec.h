#pragma once

#include <cstdint>
#include <vector>

namespace qs {

/// How the frequencies of rotary embedding are stretched beyond the original context.
enum class RopeScaling { None, Linear, Dynamic, Yarn, Llama3, LongRope };

/// Rotary position embedding (KV specification 1.7), half-split form. The field names are those of config.json.
struct RopeSpec {
  double theta = 10000.0;       ///< 0: nothing rotates (learned positions)
  std::int64_t rotary_dim = 0;  ///< leading channels of a head that rotate; 0: all of head_dim
  RopeScaling scaling = RopeScaling::None;
  double factor = 1.0;
  double low_freq_factor = 1.0, high_freq_factor = 4.0;     ///< Llama3
  double beta_fast = 32.0, beta_slow = 1.0;                 ///< Yarn
  double attention_factor = 1.0;                            ///< Yarn, LongRope: multiplies cosine and sine
  std::int64_t original_context = 0;                        ///< tokens; where scaling begins
  std::vector<double> short_factor = {}, long_factor = {};  ///< LongRope: [rotary_dim / 2]
  bool truncate = true;                                     ///< Yarn: whole channels as borders of the ramp

  bool rotates() const { return theta > 0.0; }
  /// Whether the frequencies change with the length of the text (Dynamic, LongRope).
  bool depends_on_length() const { return scaling == RopeScaling::Dynamic || scaling == RopeScaling::LongRope; }
  bool operator==(const RopeSpec&) const = default;
};

}  // namespace qs
