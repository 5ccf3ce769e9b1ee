#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace qs::kernels::cuda {

/// Joins the partial softmax sums of the chunks of a sequence; one thread block a head. A chunk of which nothing is
/// seen has the maximum -infinity.
/// @param partials  [chunks][heads][head_dim + 2]: maximum, sum, output not yet divided
/// @param out       [heads][head_dim]
static __global__ void merge_partials(const float* partials, std::int64_t heads, std::int64_t head_dim,
                                      std::int64_t chunks, float* out) {
  const std::int64_t stride = heads * (head_dim + 2);
  const float* const first = partials + blockIdx.x * (head_dim + 2);
  float max = first[0];
  for (std::int64_t c = 1; c < chunks; ++c) max = fmaxf(max, first[c * stride]);
  float sum = 0.0F;
  for (std::int64_t c = 0; c < chunks; ++c) sum += first[c * stride + 1] * expf(first[c * stride] - max);
  for (std::int64_t d = threadIdx.x; d < head_dim; d += blockDim.x) {
    float total = 0.0F;
    for (std::int64_t c = 0; c < chunks; ++c) total += first[c * stride + 2 + d] * expf(first[c * stride] - max);
    out[blockIdx.x * head_dim + d] = total / sum;
  }
}

}  // namespace qs::kernels::cuda
