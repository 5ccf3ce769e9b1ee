#include "backend/methods/token_selection.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace qs {
namespace {

/// Scores held at once, so that a long prompt needs no tokens x tokens matrix.
constexpr std::int64_t kMaxScores = std::int64_t{1} << 23;

std::int64_t pyramid_budget(const SelectionOptions& options, std::int64_t tokens, const CacheShape& shape) {
  const std::int64_t plain = options.prompt - options.observation;
  if (tokens < 2 * plain) return plain;
  std::int64_t smallest = plain / options.pyramid_ratio, largest = 2 * plain - smallest;
  if (largest >= tokens - options.observation) {
    largest = tokens - options.observation;
    smallest = 2 * plain - largest;
  }
  const std::int64_t step = (largest - smallest) / std::max<std::int64_t>(1, shape.layers);
  return largest - shape.layer * step;
}

/// Attention that each token receives from the newest queries, summed: f32 [heads, tokens].
at::Tensor received_attention(const SelectionOptions& options, const at::Tensor& query, const at::Tensor& key,
                              const CacheShape& shape) {
  const at::Tensor q = query.to(at::kFloat), k = key.to(at::kFloat);
  const std::int64_t heads = q.size(0), rows = q.size(1), head_dim = q.size(2);
  const std::int64_t kv_heads = k.size(0), tokens = k.size(1), group = heads / kv_heads;
  const double scale = shape.score_scale > 0.0 ? shape.score_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  const std::int64_t step = std::clamp(kMaxScores / std::max<std::int64_t>(1, heads * tokens), std::int64_t{1}, rows);
  const at::Tensor position = at::arange(tokens, at::kLong).unsqueeze(0);
  at::Tensor sum = at::zeros({heads, tokens}, at::kFloat);
  for (std::int64_t begin = 0; begin < rows; begin += step) {
    const std::int64_t count = std::min(step, rows - begin), first = tokens - rows + begin;
    const at::Tensor part = q.narrow(1, begin, count).reshape({kv_heads, group * count, head_dim});
    at::Tensor scores = at::bmm(part, k.transpose(1, 2)).mul_(scale).view({heads, count, tokens});
    if (shape.score_softcap > 0.0) scores = at::tanh(scores / shape.score_softcap) * shape.score_softcap;
    const at::Tensor own = at::arange(first, first + count, at::kLong).unsqueeze(1);
    at::Tensor hidden = position > own;
    if (options.prefill == PromptSelector::H2o && options.tail_block_mask)
      hidden = at::logical_and(hidden, own >= tokens - options.observation);
    if (shape.sliding_window > 0) hidden = at::logical_or(hidden, position <= own - shape.sliding_window);
    scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
    sum += at::softmax(scores, -1).sum(1);
  }
  return sum;
}

at::Tensor reduce_heads(const at::Tensor& scores, std::int64_t kv_heads, HeadReduction reduction) {
  const at::Tensor grouped = scores.view({kv_heads, scores.size(0) / kv_heads, scores.size(1)});
  if (reduction == HeadReduction::Max) return grouped.amax(1);
  return reduction == HeadReduction::Sum ? grouped.sum(1) : grouped.mean(1);
}

}  // namespace

std::int64_t kept_prompt_tokens(const SelectionOptions& options, std::int64_t tokens, const CacheShape& shape) {
  if (options.prefill == PromptSelector::All || tokens < options.prompt) return tokens;
  if (options.prefill != PromptSelector::PyramidKv) return options.prompt;
  return std::min(tokens, pyramid_budget(options, tokens, shape) + options.observation);
}

std::int64_t scoring_queries(const SelectionOptions& options, std::int64_t tokens, const CacheShape& shape) {
  if (options.prefill == PromptSelector::Streaming || kept_prompt_tokens(options, tokens, shape) == tokens) return 0;
  return options.prefill == PromptSelector::H2o ? tokens : options.observation;
}

at::Tensor select_prompt(const SelectionOptions& options, const at::Tensor& query, const at::Tensor& key,
                         const CacheShape& shape) {
  const std::int64_t kv_heads = key.size(0), tokens = key.size(1);
  const std::int64_t kept = kept_prompt_tokens(options, tokens, shape);
  if (kept == tokens) return {};
  const std::int64_t choices = tokens - options.observation, wanted = kept - options.observation;
  at::Tensor selected = at::empty({kv_heads, kept}, at::kLong);
  selected.copy_(at::arange(tokens - kept, tokens, at::kLong).unsqueeze(0));  // its end: the observation window
  if (options.prefill == PromptSelector::Streaming) {
    selected.narrow(1, 0, wanted).copy_(at::arange(wanted, at::kLong).unsqueeze(0));
    return selected;
  }
  at::Tensor scores = received_attention(options, query, key, shape).narrow(1, 0, choices);
  if (options.prefill != PromptSelector::H2o) {
    const at::Tensor rows = scores.unsqueeze(0);
    const std::int64_t kernel = options.kernel, padding = kernel / 2;
    scores = (options.max_pooling ? at::max_pool1d(rows, {kernel}, {1}, {padding})
                                  : at::avg_pool1d(rows, {kernel}, {1}, {padding}))
                 .squeeze(0);
  }
  scores = reduce_heads(scores.contiguous(), kv_heads, options.reduction).contiguous();
  for (std::int64_t head = 0; head < kv_heads; ++head) {
    const std::vector<std::int64_t> best = best_indices(scores[head].data_ptr<float>(), choices, wanted);
    std::copy(best.begin(), best.end(), selected[head].data_ptr<std::int64_t>());
  }
  return selected;
}

void DecodeSelector::begin(std::int64_t kept) {
  prefix_ = options_.prefill == PromptSelector::All || options_.prefix_is_prompt ? kept : options_.prompt;
  steps_ = skipped_ = 0;
}

std::optional<EvictionRegion> DecodeSelector::step(std::int64_t slots) {
  const std::int64_t grown = options_.recent + steps_++ / options_.interval;
  const std::int64_t fixed = options_.heavy + options_.recent, newest = slots - options_.recent;
  EvictionRegion region{prefix_, newest, options_.heavy};
  switch (options_.strategy) {
    case DecodeStrategy::None:
      return std::nullopt;
    case DecodeStrategy::Slide:
      if (slots < prefix_ + fixed) return std::nullopt;
      break;
    case DecodeStrategy::Adaptive:
    case DecodeStrategy::Discontinuous:
      if (slots < prefix_ + grown) return std::nullopt;
      if (options_.strategy == DecodeStrategy::Discontinuous) {
        if (skipped_ < options_.interval) {
          ++skipped_;
          return std::nullopt;
        }
        skipped_ = 0;
      }
      region.keep = grown - options_.recent;
      break;
    case DecodeStrategy::H2o:
      if (slots < prefix_ + fixed) return std::nullopt;
      region = {0, newest, prefix_ + options_.heavy};
      break;
    case DecodeStrategy::Streaming:
      if (slots < prefix_ + fixed) return std::nullopt;
      region = {prefix_ + options_.heavy, newest, 0};
      break;
  }
  if (region.end - region.begin <= region.keep) return std::nullopt;
  return region;
}

std::vector<std::int64_t> evicted_slots(const EvictionRegion& region, const std::vector<float>& scores) {
  std::vector<std::int64_t> slots;
  std::vector<std::int64_t> best;
  if (region.by_score()) best = best_indices(scores.data() + region.begin, region.end - region.begin, region.keep);
  auto next = best.begin();
  for (std::int64_t slot = region.begin; slot < region.end; ++slot) {
    if (next != best.end() && *next == slot - region.begin) {
      ++next;
    } else {
      slots.push_back(slot);
    }
  }
  return slots;
}

std::vector<std::int64_t> best_indices(const float* scores, std::int64_t size, std::int64_t count) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), 0);
  const auto better = [scores](std::int64_t a, std::int64_t b) {
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  };
  const auto end = order.begin() + std::min(count, size);
  if (end != order.end()) std::nth_element(order.begin(), end, order.end(), better);
  order.erase(end, order.end());
  std::sort(order.begin(), order.end());
  return order;
}

}  // namespace qs
