#include <ATen/Functions.h>

#include "backend/method.h"

namespace qs {

at::Tensor as_cached(const KvMethod& method, const at::Tensor& x, KvRole role, const JobContext& job) {
  const QuantizedTensor quantized = method.quantize(x, role, job);
  const TokenRange range = method.after_prefill(role, x.size(1));
  at::Tensor seen = method.held_in_full_precision(x).clone();
  if (range.size() > 0) {
    seen.narrow(1, range.begin, range.size()).copy_(quantized.values.narrow(1, range.begin, range.size()));
  }
  return seen;
}

}  // namespace qs
