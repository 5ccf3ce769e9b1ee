#include "backend/methods/full_precision_kv.h"

#include <ATen/ATen.h>

#include "backend/methods/kv_params.h"

namespace qs {

QuantizedTensor FullPrecisionKv::quantize(const at::Tensor& x, KvRole role, const JobContext& job) const {
  check_kv_tensor(x);
  check_finite(x, role);
  job.checkpoint(0, 1, "Full precision");
  return {.values = held_in_full_precision(x),
          .codes = at::full(x.sizes(), 255, at::kByte),
          .scale = {},
          .group_min = {},
          .levels = 0,
          .full_precision = at::ones(x.sizes(), at::kBool)};
}

at::Tensor FullPrecisionKv::held_in_full_precision(const at::Tensor& x) const {
  return as_stored(x, store_).to(x.scalar_type());
}

std::unique_ptr<KvCache> FullPrecisionKv::make_cache(const CacheShape& shape) const {
  return make_full_precision_cache(shape, store_ == GroupStore::F16 ? at::kHalf : at::kFloat);
}

void FullPrecisionKv::check_fits(const CacheShape& shape) const { check_head_counts(shape); }

}  // namespace qs
