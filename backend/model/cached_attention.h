#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/method.h"
#include "backend/model/decoder.h"
#include "backend/types/generation.h"

namespace qs {

class Model;

/// Attention through live KV caches, one per layer and sequence. The first call of a sequence (position 0) attends to
/// the original keys and values of the whole prompt and then stores them; later tokens go through
/// KvCache::append_and_attend, in the method's own order of events. Keys are given in the method's key domain.
class CachedAttention final : public AttentionProvider {
 public:
  /// @param kv            null: the full-precision cache in the compute type of `spec`'s weights
  /// @param quantization  of the attention products; while decoding always with one range per token
  /// @throws Error InvalidArgument when both a KV method and quantized attention products are asked for, or the method
  /// does
  ///         not fit the model; Unsupported when the method cannot stream
  CachedAttention(const ArchitectureSpec& spec, const KvPlan* kv, AttentionQuantization quantization,
                  at::ScalarType type, std::int64_t sequences);

  /// @throws Error Internal when a token does not follow the one before it; InvalidArgument naming layer, head and token
  /// of a NaN or infinity
  at::Tensor attend(const AttentionCall& call) override;

  const KvCache& cache(std::int64_t sequence, std::int64_t layer) const;
  CacheStats stats(std::int64_t sequence) const;  ///< summed over layers
  /// Maps the sequences of the next batches to caches: sequence i of a batch uses the caches of `active[i]`.
  void set_active(std::vector<std::int64_t> active) { active_ = std::move(active); }

 private:
  KvCache& cache_of(const AttentionCall& call);
  at::Tensor attend_through(KvCache& cache, const AttentionCall& call) const;
  at::Tensor decode(KvCache& cache, const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                    const AttentionQuantization& quantization, const AttentionRules& rules) const;

  std::int64_t layers_;
  std::vector<bool> pre_rope_;  ///< [layers]
  AttentionQuantization quantization_;
  std::vector<std::unique_ptr<KvCache>> caches_;  ///< [sequence * layers + layer]
  std::vector<std::int64_t> active_;
};

}  // namespace qs
