#include "backend/model/cached_attention.h"

#include <ATen/ATen.h>

#include <numeric>

#include "backend/model/in_layer.h"
#include "backend/types/error.h"

namespace qs {

CachedAttention::CachedAttention(const ArchitectureSpec& spec, const KvPlan* kv, AttentionQuantization quantization,
                                 at::ScalarType type, std::int64_t sequences)
    : layers_(spec.layers), quantization_(quantization), active_(sequences) {
  if (kv && quantization.bits < 16)
    throw Error(ErrorCode::InvalidArgument,
                "The weight setup quantizes the attention products and the KV setup quantizes the cache; keys and "
                "values would be "
                "quantized twice. Set quantize_attention=false in the weight setup, or leave out the KV setup.");
  quantization_.values_per_token = true;
  for (std::int64_t layer = 0; layer < layers_; ++layer)
    pre_rope_.push_back(kv && kv->layer(layer).key_domain() == KeyDomain::PreRope);
  for (std::int64_t i = 0; i < sequences * layers_; ++i) {
    const CacheShape shape = cache_shape(spec, i % layers_);
    caches_.push_back(kv ? kv->layer(i % layers_).make_cache(shape) : make_full_precision_cache(shape, type));
  }
  std::iota(active_.begin(), active_.end(), 0);
}

const KvCache& CachedAttention::cache(std::int64_t sequence, std::int64_t layer) const {
  return *caches_.at(static_cast<std::size_t>(sequence * layers_ + layer));
}

KvCache& CachedAttention::cache_of(const AttentionCall& call) {
  const std::int64_t sequence = active_.at(static_cast<std::size_t>(call.sequence));
  KvCache& cache = *caches_.at(static_cast<std::size_t>(sequence * layers_ + call.layer));
  if (cache.positions() != call.first_position)
    throw Error(ErrorCode::Internal,
                "Layer " + std::to_string(call.layer) + " has seen " + std::to_string(cache.positions()) +
                    " tokens; the next token claims position " + std::to_string(call.first_position) + ".");
  return cache;
}

at::Tensor CachedAttention::attend(const AttentionCall& call) {
  KvCache& cache = cache_of(call);
  return in_layer(call.layer, [&] { return attend_through(cache, call); });
}

at::Tensor CachedAttention::attend_through(KvCache& cache, const AttentionCall& call) const {
  const at::Tensor& key = pre_rope_[static_cast<std::size_t>(call.layer)] ? call.key_pre_rope : call.key;
  const AttentionQuantization quantization = quantization_.of_layer(call.layer);
  if (call.first_position == 0) {
    const at::Tensor output = causal_attention(call.query, call.key, call.value, quantization, call.rules);
    cache.observe_prompt(call.query);
    cache.prefill(key, call.value);
    return output;
  }
  std::vector<at::Tensor> rows;
  for (std::int64_t token = 0; token < call.query.size(1); ++token)
    rows.push_back(decode(cache, call.query.select(1, token).contiguous(), key.select(1, token).contiguous(),
                          call.value.select(1, token).contiguous(), quantization, call.rules));
  const at::Tensor output = rows.size() == 1 ? rows.front().unsqueeze(1) : at::stack(rows, 1);
  return output.to(call.query.scalar_type());
}

at::Tensor CachedAttention::decode(KvCache& cache, const at::Tensor& query, const at::Tensor& key,
                                   const at::Tensor& value, const AttentionQuantization& quantization,
                                   const AttentionRules& rules) const {
  const at::Tensor output = cache.append_and_attend(query, key, value);
  if (quantization.off()) return output;
  const auto [keys, values] = cache.materialize();
  return causal_attention(query.unsqueeze(1), keys.to(query.scalar_type()), values.to(query.scalar_type()),
                          quantization, rules)
      .squeeze(1);
}

CacheStats CachedAttention::stats(std::int64_t sequence) const {
  CacheStats total;
  for (std::int64_t layer = 0; layer < layers_; ++layer) total += cache(sequence, layer).stats();
  return total;
}

}  // namespace qs
