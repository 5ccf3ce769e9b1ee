#include "backend/evaluation/cache_memory.h"

#include <ATen/ATen.h>
#include <sys/resource.h>

#include <cmath>

#include "backend/method.h"
#include "backend/model/cached_attention.h"
#include "backend/model/decoder.h"

namespace qs {
namespace {

/// Fills one cache a layer with the keys and values that flow by, and keeps only its statistics.
class CacheMeter final : public TapSink {
 public:
  CacheMeter(const KvPlan* plan, const ArchitectureSpec& spec) : plan_(plan), spec_(spec) {}

  void on_attention(const AttentionCall& call) override {
    const CacheShape shape = cache_shape(spec_, call.layer);
    const KvMethod* method = plan_ ? &plan_->layer(call.layer) : nullptr;
    const auto cache = method ? method->make_cache(shape) : make_full_precision_cache(shape, at::kHalf);
    const bool pre_rope = method && method->key_domain() == KeyDomain::PreRope;
    cache->observe_prompt(call.query);
    cache->prefill((pre_rope ? call.key_pre_rope : call.key).contiguous(), call.value.contiguous());
    total_ += cache->stats();
  }
  const CacheStats& total() const { return total_; }

 private:
  const KvPlan* plan_;
  const ArchitectureSpec& spec_;
  CacheStats total_;
};

}  // namespace

CacheStats measure_cache(const Variant& variant, const std::vector<std::int64_t>& ids, const JobContext& job) {
  const at::InferenceMode no_grad;
  const ArchitectureSpec& spec = variant.model().spec();
  const CacheShape shape = cache_shape(spec);
  const auto tokens = static_cast<std::int64_t>(ids.size());
  if (variant.kv() && !variant.kv()->cannot_stream().empty()) {
    CacheStats stats;
    stats.tokens = tokens;
    stats.bytes_if_f16 = variant.model().info().kv_bytes_per_token() * tokens;
    stats.bytes_codes =
        std::llround(static_cast<double>(stats.bytes_if_f16) * variant.kv()->effective_bits(shape, tokens) / 16.0);
    return stats;
  }
  CacheMeter meter(variant.kv(), spec);
  FullPrecisionWindow attention(variant.weights().attention);
  forward(spec, variant.weights(), RaggedBatch::single(ids), attention, LogitRows::None, &meter, job);
  return meter.total();
}

std::int64_t peak_resident_bytes() {
  rusage usage{};
  return getrusage(RUSAGE_SELF, &usage) == 0 ? static_cast<std::int64_t>(usage.ru_maxrss) * 1024 : 0;
}

}  // namespace qs
