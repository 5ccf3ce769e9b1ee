#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "backend/types/attention_rules.h"
#include "backend/types/job.h"

namespace qs {

/// First tokens whose joint attention mass is reported as sink mass.
inline constexpr std::array<std::int64_t, 4> kSinkCounts = {1, 4, 16, 64};
/// Pooled attention maps have at most this many rows and columns; windows that are not longer have none.
inline constexpr std::int64_t kMapSize = 256;

/// Number of distance buckets of windows of `tokens` tokens: bucket 0 is distance 0 (the token itself), bucket b holds
/// 2^(b-1) <= distance < 2^b.
std::int64_t distance_buckets(std::int64_t tokens);

/// Reductions of the attention probabilities of one layer over one window; all f32 on the CPU.
struct AttentionStatistics {
  std::int64_t tokens = 0;
  at::Tensor log_sum_exp;       ///< [heads, tokens], of the scaled, soft-capped, masked scores
  at::Tensor entropy;           ///< [heads, tokens], nats
  at::Tensor span_90;           ///< [heads, tokens], the smallest count of newest tokens that hold 90 % of the mass
  at::Tensor mass_by_distance;  ///< [heads, buckets], mean over queries
  at::Tensor sink_mass;         ///< [heads, kSinkCounts], mean over queries, of the first 1, 4, .. tokens
  at::Tensor mass_quartiles;  ///< [3, heads, buckets], quartiles over queries of the mass within each bucket's largest
                              ///< distance
  at::Tensor map_max,
      map_mean;  ///< [heads, n, n] pooled over map_factor x map_factor cells, the mean over causal cells
  std::int64_t map_factor = 0;
};

/// Computed in blocks of rows; no tokens x tokens tensor of all heads exists.
/// @param query  [heads, tokens, head_dim], key [kv_heads, tokens, head_dim], both rotated
/// @throws Cancelled
AttentionStatistics attention_statistics(const at::Tensor& query, const at::Tensor& key, const AttentionRules& rules,
                                         const JobContext& job);

}  // namespace qs
