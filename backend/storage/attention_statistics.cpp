#include "backend/storage/attention_statistics.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

namespace qs {
namespace {

constexpr std::int64_t kBlockElements = 8 << 20;  ///< scores in flight: 32 MB

/// Pools rows [begin, begin + rows) into the maps.
void pool_rows(const at::Tensor& probability, std::int64_t begin, std::int64_t tokens, AttentionStatistics& result) {
  const std::int64_t f = result.map_factor, n = result.map_max.size(1), heads = probability.size(0),
                     rows = probability.size(1);
  const std::int64_t tiles = (rows + f - 1) / f;
  const at::Tensor cells =
      at::constant_pad_nd(probability, {0, n * f - tokens, 0, tiles * f - rows}).view({heads, tiles, f, n, f});
  const at::Tensor row = at::arange(begin, begin + tiles * f, at::kLong).view({tiles, f, 1, 1});
  const at::Tensor column = at::arange(n * f, at::kLong).view({1, 1, n, f});
  const at::Tensor causal = (column <= row).logical_and(row < tokens).to(at::kFloat).sum({1, 3}).clamp_min(1);
  result.map_max.narrow(1, begin / f, tiles).copy_(cells.amax({2, 4}));
  result.map_mean.narrow(1, begin / f, tiles).copy_(cells.sum({2, 4}) / causal);
}

}  // namespace

std::int64_t distance_buckets(std::int64_t tokens) {
  return 1 +
         static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(std::max<std::int64_t>(tokens - 1, 0))));
}

AttentionStatistics attention_statistics(const at::Tensor& query, const at::Tensor& key, const AttentionRules& rules,
                                         const JobContext& job) {
  const at::Tensor q = query.to(at::kCPU, at::kFloat).contiguous(), k = key.to(at::kCPU, at::kFloat).contiguous();
  const std::int64_t heads = q.size(0), tokens = q.size(1), head_dim = q.size(2), kv_heads = k.size(0),
                     shared = heads / kv_heads;
  const std::int64_t buckets = distance_buckets(tokens);
  AttentionStatistics result;
  result.tokens = tokens;
  result.log_sum_exp = at::empty({heads, tokens}, at::kFloat);
  result.entropy = at::empty({heads, tokens}, at::kFloat);
  result.span_90 = at::empty({heads, tokens}, at::kFloat);
  at::Tensor within = at::empty({heads, tokens, buckets}, at::kFloat);  // mass of the newest 2^b tokens
  at::Tensor sinks = at::zeros({heads, static_cast<std::int64_t>(kSinkCounts.size())}, at::kFloat);
  if (tokens > kMapSize) {
    result.map_factor = (tokens + kMapSize - 1) / kMapSize;
    const std::int64_t n = (tokens + result.map_factor - 1) / result.map_factor;
    result.map_max = at::zeros({heads, n, n}, at::kFloat);
    result.map_mean = at::zeros({heads, n, n}, at::kFloat);
  }
  const std::int64_t step = std::max<std::int64_t>(result.map_factor, 1);
  const std::int64_t block = std::max(step, kBlockElements / std::max<std::int64_t>(heads * tokens, 1) / step * step);
  const at::Tensor keys = k.transpose(1, 2);
  const double scale = rules.score_scale > 0.0 ? rules.score_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  for (std::int64_t begin = 0; begin < tokens; begin += block) {
    if (job.stop_requested()) throw Cancelled{};
    const std::int64_t rows = std::min(block, tokens - begin);
    const at::Tensor position = at::arange(begin, begin + rows, at::kLong);
    const at::Tensor distance = position.unsqueeze(1) - at::arange(tokens, at::kLong).unsqueeze(0);
    at::Tensor hidden = distance < 0;
    if (rules.sliding_window > 0) hidden = at::logical_or(hidden, distance >= rules.sliding_window);
    const at::Tensor grouped = q.narrow(1, begin, rows).reshape({kv_heads, shared * rows, head_dim});
    at::Tensor scores = at::bmm(grouped, keys).view({heads, rows, tokens}).mul_(scale);
    if (rules.score_softcap > 0.0) scores.div_(rules.score_softcap).tanh_().mul_(rules.score_softcap);
    const at::Tensor masked = scores.masked_fill(hidden, -std::numeric_limits<float>::infinity());
    const at::Tensor lse = at::logsumexp(masked, at::IntArrayRef{2});
    const at::Tensor probability = (masked - lse.unsqueeze(2)).exp_();
    result.log_sum_exp.narrow(1, begin, rows).copy_(lse);
    result.entropy.narrow(1, begin, rows).copy_(lse - (probability * scores).sum(2));
    const at::Tensor cumulative = probability.cumsum(2);  // mass of the oldest keys
    const at::Tensor outside = (cumulative <= 0.1).sum(2);
    result.span_90.narrow(1, begin, rows).copy_((position + 1).unsqueeze(0) - outside);
    for (std::int64_t b = 0; b < buckets; ++b) {
      const at::Tensor last_outside = position - (std::int64_t{1} << b);
      const at::Tensor index = last_outside.clamp_min(0).view({1, rows, 1}).expand({heads, rows, 1});
      const at::Tensor left_out = cumulative.gather(2, index).squeeze(2).masked_fill(last_outside < 0, 0.0);
      within.narrow(1, begin, rows).select(2, b).copy_(1.0 - left_out);
    }
    for (std::size_t s = 0; s < kSinkCounts.size(); ++s) {
      const std::int64_t last = std::min(kSinkCounts[s], tokens) - 1;
      sinks.select(1, static_cast<std::int64_t>(s)).add_(cumulative.select(2, last).sum(1));
    }
    if (result.map_factor) pool_rows(probability, begin, tokens, result);
  }
  result.sink_mass = sinks / static_cast<double>(tokens);
  const at::Tensor mean = within.mean(at::IntArrayRef{1});
  result.mass_by_distance = mean.clone();
  if (buckets > 1) result.mass_by_distance.narrow(1, 1, buckets - 1).sub_(mean.narrow(1, 0, buckets - 1));
  const at::Tensor sorted = std::get<0>(within.sort(1));
  std::vector<at::Tensor> quartiles;
  for (const double part : {0.25, 0.5, 0.75}) {
    quartiles.push_back(
        sorted.select(1, static_cast<std::int64_t>(std::llround(part * static_cast<double>(tokens - 1)))));
  }
  result.mass_quartiles = at::stack(quartiles);
  return result;
}

}  // namespace qs
