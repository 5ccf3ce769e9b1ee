#pragma once

#include <cstdint>
#include <vector>

namespace qs {

/// Which elements of a cached tensor share a scale: runs of tokens times runs of channels, where channels are the
/// flattened axis [kv_heads * head_dim] in the order in which the method takes them.
struct ScaleGroups {
  std::int64_t tokens = 1;           ///< of a run; 0: all of them
  std::vector<std::int64_t> starts;  ///< position of the first channel of each run, ascending from 0; empty: no scales
  std::vector<std::int64_t> order;   ///< channel at each position; empty: as they lie
};

/// Positions 0, step, 2 * step, ... below `channels`.
inline std::vector<std::int64_t> even_starts(std::int64_t channels, std::int64_t step) {
  std::vector<std::int64_t> starts;
  for (std::int64_t start = 0; start < channels; start += step) starts.push_back(start);
  return starts;
}

}  // namespace qs
