#include "backend/methods/scope_cache.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cstring>

#include "backend/types/error.h"

namespace qs {
namespace {

/// Elements of keys from which on the heads are worth a thread each.
constexpr std::int64_t kElementsForThreads = 1 << 18;

at::Tensor indices(const std::vector<std::int64_t>& values) {
  return at::from_blob(const_cast<std::int64_t*>(values.data()), {static_cast<std::int64_t>(values.size())}, at::kLong)
      .clone();
}

}  // namespace

void ScopeCache::Head::add(std::int64_t token) {
  const auto stored = static_cast<std::int32_t>(token);
  std::memcpy(position.grow(sizeof stored), &stored, sizeof stored);
  ++slots;
}

std::vector<std::int64_t> ScopeCache::Head::live_slots() const {
  std::vector<std::int64_t> live;
  for (std::int64_t slot = 0; slot < slots; ++slot)
    if (positions()[slot] >= 0) live.push_back(slot);
  return live;
}

std::vector<std::uint8_t> ScopeCache::Head::dead_mask() const {
  std::vector<std::uint8_t> mask(static_cast<std::size_t>(slots));
  for (std::int64_t slot = 0; slot < slots; ++slot) mask[static_cast<std::size_t>(slot)] = positions()[slot] < 0;
  return mask;
}

ScopeCache::ScopeCache(const KvMethod& base, const SelectionOptions& options, bool compact, const CacheShape& shape)
    : options_(options), compact_(compact), shape_(shape), head_shape_(shape), selector_(options) {
  head_shape_.heads = shape.heads / shape.kv_heads;
  head_shape_.kv_heads = 1;
  head_shape_.sliding_window = 0;  // counts positions, not slots: hidden_from_next does it
  heads_.resize(static_cast<std::size_t>(shape.kv_heads));
  for (Head& head : heads_) {
    std::unique_ptr<KvCache> cache = base.make_cache(head_shape_);
    if (dynamic_cast<StoreCache*>(cache.get()) == nullptr)
      throw Error(ErrorCode::Internal,
                  "Token selection works on caches made of token stores; this method has another.");
    head.cache.reset(static_cast<StoreCache*>(cache.release()));
  }
  selector_.begin(0);
}

void ScopeCache::observe_prompt(const at::Tensor& query) {
  const std::int64_t rows = scoring_queries(options_, query.size(1), shape_);
  query_ = rows == 0 ? at::Tensor() : query.narrow(1, query.size(1) - rows, rows).clone();
}

void ScopeCache::prefill(const at::Tensor& key, const at::Tensor& value) {
  if (positions_ != 0)
    throw Error(ErrorCode::InvalidArgument, "A prompt can only be stored in an empty cache; this one has seen " +
                                                std::to_string(positions_) + " tokens.");
  check_kv_tensor(key);
  check_kv_tensor(value);
  if (key.size(0) != shape_.kv_heads || value.sizes() != key.sizes())
    throw Error(ErrorCode::InvalidArgument, "The cache expects keys and values of " + std::to_string(shape_.kv_heads) +
                                                " KV heads and equal shapes.");
  check_finite(key, KvRole::Key);
  check_finite(value, KvRole::Value);
  const std::int64_t tokens = key.size(1);
  const std::int64_t rows = scoring_queries(options_, tokens, shape_);
  if (rows > 0 && (!query_.defined() || query_.size(1) != rows))
    throw Error(ErrorCode::InvalidArgument,
                "Selecting from a prompt of " + std::to_string(tokens) +
                    " tokens needs the prompt's queries, which are not known here. Capture them too, or use "
                    "prefill=allkv or prefill=streaming.");
  const at::Tensor selected = select_prompt(options_, query_, key, shape_);
  query_ = at::Tensor();
  for (std::int64_t h = 0; h < shape_.kv_heads; ++h) {
    Head& head = heads_[static_cast<std::size_t>(h)];
    at::Tensor head_key = key.narrow(0, h, 1), head_value = value.narrow(0, h, 1);
    if (selected.defined()) {
      head_key = head_key.index_select(1, selected[h]);
      head_value = head_value.index_select(1, selected[h]);
    }
    head.cache->prefill(head_key.contiguous(), head_value.contiguous());
    const std::int64_t* const chosen = selected.defined() ? selected[h].data_ptr<std::int64_t>() : nullptr;
    for (std::int64_t slot = 0; slot < head_key.size(1); ++slot) head.add(chosen ? chosen[slot] : slot);
  }
  live_ = heads_.front().slots;
  positions_ = tokens;
  selector_.begin(live_);
}

std::vector<std::uint8_t> ScopeCache::hidden_from_next(const Head& head) const {
  if (head.dead == 0 && shape_.sliding_window == 0) return {};
  std::vector<std::uint8_t> hidden = head.dead_mask();
  if (shape_.sliding_window > 0) {
    for (std::int64_t slot = 0; slot < head.slots; ++slot)
      hidden[static_cast<std::size_t>(slot)] |= head.positions()[slot] <= positions_ - shape_.sliding_window;
  }
  hidden.push_back(0);
  return hidden;
}

at::Tensor ScopeCache::append_and_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  if (query.dim() != 2 || query.size(0) != shape_.heads || key.dim() != 2 || key.size(0) != shape_.kv_heads ||
      value.sizes() != key.sizes())
    throw Error(ErrorCode::InvalidArgument, "A decode step needs a query of " + std::to_string(shape_.heads) +
                                                " heads and a key and a value of " + std::to_string(shape_.kv_heads) +
                                                ".");
  check_finite(key, KvRole::Key, positions_);
  check_finite(value, KvRole::Value, positions_);
  const std::optional<EvictionRegion> region = selector_.step(live_ + 1);
  const std::int64_t group = head_shape_.heads, width = group * shape_.head_dim;
  at::Tensor out = at::empty({shape_.heads, shape_.head_dim}, at::kFloat);
  float* const rows = out.data_ptr<float>();
  const auto step = [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t h = first; h < last; ++h)
      step_head(heads_[static_cast<std::size_t>(h)], query.narrow(0, h * group, group), key.narrow(0, h, 1),
                value.narrow(0, h, 1), region, rows + h * width);
  };
  const bool threads =
      shape_.kv_heads >= at::get_num_threads() && live_ * shape_.kv_heads * shape_.head_dim >= kElementsForThreads;
  if (threads) {
    at::parallel_for(0, shape_.kv_heads, 1, step);
  } else {
    step(0, shape_.kv_heads);
  }
  ++positions_;
  live_ = heads_.front().slots - heads_.front().dead;
  return out;
}

void ScopeCache::step_head(Head& head, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const std::optional<EvictionRegion>& region, float* out) const {
  AttentionWeights weights;
  const std::vector<std::uint8_t> hidden = hidden_from_next(head);
  const at::Tensor output = head.cache->append_then_attend(
      query, key, value, region && region->by_score() ? &weights : nullptr, hidden.empty() ? nullptr : hidden.data());
  std::copy_n(output.data_ptr<float>(), output.numel(), out);
  head.add(positions_);
  if (region) {
    const std::vector<std::int64_t> live = head.live_slots();
    const std::vector<float> scores = region->by_score() ? scores_of(head, weights, live) : std::vector<float>();
    for (const std::int64_t index : evicted_slots(*region, scores)) {
      std::int32_t& position = head.positions()[live[static_cast<std::size_t>(index)]];
      position = ~position;
      ++head.dead;
    }
  }
  head.cache->finish_step();
  if (head.dead > 0) reclaim(head);
}

std::vector<float> ScopeCache::scores_of(const Head& head, const AttentionWeights& weights,
                                         const std::vector<std::int64_t>& live) const {
  std::vector<float> scores;
  for (const std::int64_t slot : live) {
    float sum = 0.0f, largest = 0.0f;
    for (std::int64_t query = 0; query < head_shape_.heads; ++query) {
      const float weight = weights.weights[static_cast<std::size_t>(query * head.slots + slot)];
      sum += weight;
      largest = std::max(largest, weight);
    }
    if (options_.reduction == HeadReduction::Mean) sum /= static_cast<float>(head_shape_.heads);
    scores.push_back(options_.reduction == HeadReduction::Max ? largest : sum);
  }
  return scores;
}

void ScopeCache::reclaim(Head& head) const {
  const Reclaimed reclaimed = head.cache->reclaim(head.dead_mask(), compact_);
  constexpr auto kBytes = static_cast<std::int64_t>(sizeof(std::int32_t));
  for (auto slot = reclaimed.tokens.rbegin(); slot != reclaimed.tokens.rend(); ++slot)
    head.position.erase(*slot * kBytes, kBytes);
  const auto count = static_cast<std::int64_t>(reclaimed.tokens.size());
  head.slots -= count;
  head.dead -= count;
  head.requantized += reclaimed.requantized;
}

std::pair<at::Tensor, at::Tensor> ScopeCache::materialize() const {
  std::vector<at::Tensor> keys, values;
  for (const Head& head : heads_) {
    const at::Tensor live = indices(head.live_slots());
    const auto [key, value] = head.cache->materialize();
    keys.push_back(key.index_select(1, live));
    values.push_back(value.index_select(1, live));
  }
  return {at::cat(keys, 0), at::cat(values, 0)};
}

at::Tensor ScopeCache::kept_positions() const {
  at::Tensor kept = at::empty({shape_.kv_heads, live_}, at::kLong);
  std::int64_t* next = kept.data_ptr<std::int64_t>();
  for (const Head& head : heads_) {
    for (const std::int64_t slot : head.live_slots()) *next++ = head.positions()[slot];
  }
  return kept;
}

TokenRange ScopeCache::quantized(KvRole role) const {
  const Head& head = heads_.front();
  const TokenRange slots = head.cache->quantized(role);
  const std::vector<std::int64_t> live = head.live_slots();
  const auto index = [&](std::int64_t slot) { return std::lower_bound(live.begin(), live.end(), slot) - live.begin(); };
  return {index(slots.begin), index(slots.end)};
}

CacheStats ScopeCache::stats() const {
  CacheStats total;
  const std::int64_t f16_bytes = 2 * shape_.head_dim * 2;  // of a token's key and value in one head
  for (const Head& head : heads_) {
    total += head.cache->stats();
    total.bytes_indices += head.position.bytes();
    total.bytes_dead +=
        head.cache->bytes_of(head.dead_mask()) + head.dead * static_cast<std::int64_t>(sizeof(std::int32_t));
    total.bytes_if_f16_evicted += (positions_ - head.slots) * f16_bytes;
    total.requantized_tokens += head.requantized;
  }
  total.tokens = live_;
  total.tokens_full_precision = live_ - quantized(KvRole::Key).size();
  total.tokens_evicted = positions_ - live_;
  total.tokens_dead = heads_.front().dead;
  total.bytes_if_f16 = positions_ * shape_.kv_heads * f16_bytes;
  return total;
}

}  // namespace qs
