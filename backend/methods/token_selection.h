#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "backend/method.h"

namespace qs {

enum class PromptSelector { All, H2o, SnapKv, PyramidKv, Streaming };
enum class DecodeStrategy { None, Slide, Adaptive, Discontinuous, H2o, Streaming };
enum class HeadReduction { Mean, Max, Sum };

/// Names as in the KV specification, section 9: P, w, k, beta1, beta2, delta.
struct SelectionOptions {
  PromptSelector prefill = PromptSelector::SnapKv;
  DecodeStrategy strategy = DecodeStrategy::Slide;
  HeadReduction reduction = HeadReduction::Mean;  ///< over the query heads of a KV head
  std::int64_t prompt = 2048;                     ///< P: slots of the protected prefix
  std::int64_t observation = 8;                   ///< w: newest prompt tokens, always kept; their queries score
  std::int64_t kernel = 7;                        ///< k, odd
  std::int64_t pyramid_ratio = 20;                ///< of the prompt budget to the smallest layer's
  std::int64_t heavy = 256;                       ///< beta1: slots for heavy hitters among decoded tokens
  std::int64_t recent = 256;                      ///< beta2: newest slots, always kept
  std::int64_t interval = 15;                     ///< delta, at least 1
  bool max_pooling = true;                        ///< false: average
  bool tail_block_mask = false;                   ///< h2o scores as published: causal only inside the last w x w block
  bool prefix_is_prompt = false;                  ///< the protected prefix is what the prompt left, not P slots
};

/// Tokens of a prompt that are kept in each KV head.
std::int64_t kept_prompt_tokens(const SelectionOptions& options, std::int64_t tokens, const CacheShape& shape);

/// Newest queries of the prompt that select_prompt needs: 0, the observation window, or all.
std::int64_t scoring_queries(const SelectionOptions& options, std::int64_t tokens, const CacheShape& shape);

/// The tokens that are kept, ascending: int64 [kv_heads, kept]. Undefined when all are. Ties: the earlier token.
/// @param query  [heads, scoring_queries(), head_dim], the prompt's newest, rotated; not read when none are needed
/// @param key    [kv_heads, tokens, head_dim], rotated
at::Tensor select_prompt(const SelectionOptions& options, const at::Tensor& query, const at::Tensor& key,
                         const CacheShape& shape);

/// Which slots of a step may go: all of [begin, end) but the `keep` best-scored.
struct EvictionRegion {
  std::int64_t begin = 0, end = 0, keep = 0;
  bool by_score() const { return keep > 0; }
};

/// When decoded tokens are evicted, for one layer of one sequence (KV specification 9.4).
class DecodeSelector {
 public:
  explicit DecodeSelector(const SelectionOptions& options) : options_(options) {}
  /// Forgets all counters. @param kept  slots that the prompt left
  void begin(std::int64_t kept);
  /// Counts a decode step. @param slots  live ones, the step's token included
  std::optional<EvictionRegion> step(std::int64_t slots);

 private:
  SelectionOptions options_;
  std::int64_t prefix_ = 0, steps_ = 0, skipped_ = 0;
};

/// Slots of the region that go, ascending. @param scores  of all slots; not read unless region.by_score()
std::vector<std::int64_t> evicted_slots(const EvictionRegion& region, const std::vector<float>& scores);

/// The best `count` of scores[0 .. size), ascending; ties: the lower index.
std::vector<std::int64_t> best_indices(const float* scores, std::int64_t size, std::int64_t count);

}  // namespace qs
