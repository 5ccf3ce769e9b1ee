#pragma once

#include "backend/methods/kv_groups.h"

namespace qs {

/// No quantization: a layer of a per-layer setup in full precision, and the cache that token selection alone works on.
class FullPrecisionKv final : public KvMethod {
 public:
  explicit FullPrecisionKv(GroupStore store = GroupStore::F16) : store_(store) {}

  QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const override;
  TokenRange seen_by_query(KvRole, std::int64_t) const override { return {}; }
  TokenRange after_prefill(KvRole, std::int64_t) const override { return {}; }
  at::Tensor held_in_full_precision(const at::Tensor& x) const override;
  ScaleGroups scale_groups(KvRole, const CacheShape&) const override { return {}; }
  std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const override;
  double effective_bits(const CacheShape&, std::int64_t) const override {
    return store_ == GroupStore::F16 ? 16.0 : 32.0;
  }
  void check_fits(const CacheShape& shape) const override;

 private:
  GroupStore store_;
};

}  // namespace qs
