#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "backend/types/tensor_view.h"

namespace qs::analysis {

/// What attention of one layer is recomputed from. Query head h reads KV head h / (heads / kv_heads); scores are
/// q . k / sqrt(head_dim); a query sees keys of its own window up to itself.
struct AttentionInput {
  TensorView query;         ///< f32 [heads, tokens, head_dim], rotated
  TensorView key;           ///< f32 [kv_heads, tokens, head_dim], rotated
  TensorView log_sum_exp;   ///< f32 [heads, tokens] of the scaled scores; empty: recomputed from the keys
  std::int64_t window = 0;  ///< tokens per independent sequence; 0: all tokens are one
  std::int64_t heads() const { return query.shape.empty() ? 0 : query.shape[0]; }
  std::int64_t tokens() const { return query.shape.size() < 2 ? 0 : query.shape[1]; }
};

/// Exact attention of queries [query_begin, query_end) to keys [key_begin, key_end): f32, rows are queries. Zero where
/// the causal mask forbids. @throws Error InvalidArgument for shapes that do not fit or a range outside the tokens
TensorView attention_tile(const AttentionInput& input, std::int64_t head, std::int64_t query_begin,
                          std::int64_t query_end, std::int64_t key_begin, std::int64_t key_end);

/// Distances 0, 1, 2, 4, ... below `tokens`, then tokens - 1: where the cumulative mass is sampled.
std::vector<std::int64_t> distance_marks(std::int64_t tokens);

/// Keys [begin, end) that a query sees quantized, by the query's place in its window: the rest is protected.
struct KeyRange {
  std::int64_t begin = 0, end = 0;
};
using QuantizedKeys = std::vector<KeyRange>;

/// Attention mass of one head against distance (query position - key position).
struct HeadLocality {
  std::vector<std::int64_t> distance;            ///< see distance_marks
  std::vector<float> mean, lower, upper;         ///< mass within `distance`: mean and quartiles over queries
  std::vector<float> mass_by_distance;           ///< mean mass at exactly d, [tokens]
  double entropy_nats = 0.0;                     ///< mean over queries
  double sink_mass = 0.0;                        ///< mean mass on the first `sink_tokens` of the window
  double span_90 = 0.0;                          ///< mean distance within which 90 % of the mass lies, tokens
  std::vector<double> quantized_mass;            ///< mean mass on the quantized keys of each of `quantized`
  std::int64_t queries = 0;                      ///< rows that were looked at
  double mass_within(std::int64_t width) const;  ///< distances 0 .. width - 1
};

/// @param max_queries  at most so many evenly spaced query rows; 0: all
/// @param checkpoint   called between blocks of rows; may throw to stop
/// @param quantized    each with an entry for every place in a window
HeadLocality head_locality(const AttentionInput& input, std::int64_t head, std::int64_t sink_tokens,
                           std::int64_t max_queries, const std::function<void()>& checkpoint = {},
                           const std::vector<QuantizedKeys>& quantized = {});

/// Causal attention map pooled to at most `extent` cells a side, exact when tokens <= extent.
struct PooledAttention {
  std::int64_t factor = 1;
  TensorView max, mean;  ///< [ceil(tokens / factor)] squared; the mean is over all cells of the block
};
PooledAttention pooled_attention(const AttentionInput& input, std::int64_t head, std::int64_t extent,
                                 const std::function<void()>& checkpoint = {});

/// Attention from one token (its row, over keys) and to it (its column, over queries): [tokens] each.
struct TokenAttention {
  std::vector<float> given, received;
};
TokenAttention token_attention(const AttentionInput& input, std::int64_t head, std::int64_t token);

}  // namespace qs::analysis
