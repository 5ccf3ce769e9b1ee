#pragma once

#include <cstdint>

namespace qs {

/// What changes the scores of attention, of one layer.
struct AttentionRules {
  double score_scale = 0.0;         ///< of query * key; 0: 1 / sqrt(head_dim)
  double score_softcap = 0.0;       ///< scores become cap * tanh(score / cap) before the softmax; 0: off
  std::int64_t sliding_window = 0;  ///< newest tokens that a query sees, itself included; 0: all
  bool operator==(const AttentionRules&) const = default;
};

}  // namespace qs
