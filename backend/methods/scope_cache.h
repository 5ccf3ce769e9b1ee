#pragma once

#include "backend/methods/kv_cache_base.h"
#include "backend/methods/token_selection.h"

namespace qs {

/// One cache of the base method a KV head, whose tokens are evicted between a step's attention and its flush. A token's
/// position is kept beside it and never changes; a token that cannot leave at once (its key block has others alive) is
/// dead: no query sees it.
class ScopeCache final : public KvCache {
 public:
  /// @param compact  quantize keys anew where dead tokens take half of two neighbouring blocks
  ScopeCache(const KvMethod& base, const SelectionOptions& options, bool compact, const CacheShape& shape);

  void observe_prompt(const at::Tensor& query) override;
  /// @throws Error InvalidArgument when the selector needs queries and observe_prompt did not give them
  void prefill(const at::Tensor& key, const at::Tensor& value) override;
  at::Tensor append_and_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) override;
  std::pair<at::Tensor, at::Tensor> materialize() const override;
  std::int64_t tokens() const override { return live_; }
  std::int64_t positions() const override { return positions_; }
  /// Of the first KV head; heads differ in which tokens they hold.
  TokenRange quantized(KvRole role) const override;
  CacheStats stats() const override;

  /// Positions of the live tokens, ascending: int64 [kv_heads, tokens()].
  at::Tensor kept_positions() const;

 private:
  struct Head {
    std::unique_ptr<StoreCache> cache;
    ExactBuffer position;  ///< int32 a slot; the complement once the token is dead
    std::int64_t slots = 0, dead = 0, requantized = 0;
    std::int32_t* positions() { return reinterpret_cast<std::int32_t*>(position.data()); }
    const std::int32_t* positions() const { return reinterpret_cast<const std::int32_t*>(position.data()); }
    void add(std::int64_t token);
    std::vector<std::int64_t> live_slots() const;
    std::vector<std::uint8_t> dead_mask() const;
  };
  std::vector<std::uint8_t> hidden_from_next(const Head& head) const;
  void step_head(Head& head, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                 const std::optional<EvictionRegion>& region, float* out) const;
  std::vector<float> scores_of(const Head& head, const AttentionWeights& weights,
                               const std::vector<std::int64_t>& live) const;
  void reclaim(Head& head) const;

  SelectionOptions options_;
  bool compact_;
  CacheShape shape_, head_shape_;
  std::vector<Head> heads_;
  DecodeSelector selector_;
  at::Tensor query_;  ///< newest queries of the prompt, from observe_prompt to prefill
  std::int64_t live_ = 0, positions_ = 0;
};

}  // namespace qs
