#include <math_constants.h>

#include "kernels/cuda/attention_merge.cuh"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_common.cuh"
#include "kernels/cuda/row_codes.h"
#include "kernels/kv_grouped.h"

namespace qs::kernels::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kLanes = 32;
constexpr int kThreads = kWarps * kLanes;
constexpr int kChunk = 128;  ///< tokens of one thread block
constexpr int kQueries = 4;  ///< query heads of one thread block
constexpr int kMaxDim = 256;
constexpr int kMost = kMaxDim / kLanes;  ///< channels of a lane

std::int64_t chunks_of(std::int64_t tokens) { return (tokens + kChunk - 1) / kChunk; }

__device__ float parameter(ParameterFormat format, const void* from, std::int64_t index) {
  switch (format) {
    case ParameterFormat::F16:
      return half_bits_to_float(static_cast<const std::uint16_t*>(from)[index]);
    case ParameterFormat::F32:
      return static_cast<const float*>(from)[index];
    case ParameterFormat::E4M3:
      return from_e4m3(static_cast<const std::uint8_t*>(from)[index]);
    default:
      return from_e5m2(static_cast<const std::uint8_t*>(from)[index]);
  }
}

/// One side of one KV head. What does not change from token to token is read once.
struct HeadRows {
  const RowSide& side;
  std::int64_t kv_head, kv_heads, head_dim, tokens;

  __device__ bool coded(std::int64_t token) const { return token >= side.begin && token < side.end; }

  __device__ float dense(std::int64_t token, std::int64_t d) const {
    if (token < side.begin) return half_bits_to_float(side.sinks[(kv_head * side.begin + token) * head_dim + d]);
    const std::int64_t recent = tokens - side.end;
    return half_bits_to_float(side.recent[(kv_head * recent + token - side.end) * head_dim + d]);
  }

  /// Without the sparse elements.
  __device__ float element(std::int64_t token, std::int64_t d) const {
    if (!coded(token)) return dense(token, d);
    const std::int64_t line = token - side.begin;
    const std::uint8_t* const row = side.codes + line * side.token_bytes;
    const std::int64_t channel = kv_head * head_dim + d;
    if (side.table != nullptr) {
      const float level = side.table[stream_code(row + kv_head * side.head_bytes, side.bits, d)];
      if (side.channel_scale != nullptr)
        return __fadd_rn(__fmul_rn(level, side.channel_scale[channel]), side.channel_zero[channel]);
      return __fadd_rn(__fmul_rn(level, parameter(ParameterFormat::F16, side.scale, line)),
                       parameter(ParameterFormat::F16, side.group_min, line));
    }
    const int code = side.bits == kTritBits ? trit_code(row, side.token_bytes, channel)
                                            : row_code(row + kv_head * side.head_bytes, head_dim, side.bits, d);
    const std::int64_t group = line * side.groups + side.group_of[channel];
    return __fadd_rn(__fmul_rn(static_cast<float>(code), parameter(side.format, side.scale, group)),
                     parameter(side.format, side.group_min, group));
  }
};

/// Partial scores of this lane for one token: its channels, or its pairs where keys rotate.
__device__ void lane_scores(const RowAttention& args, const HeadRows& keys, std::int64_t token,
                            const float (*query)[kMaxDim], float* scores) {
  const int lane = threadIdx.x % kLanes;
  const bool rotates = args.rotation != nullptr && keys.coded(token);
  const std::int64_t half = rotates ? args.half : 0;
  const float* const cosine =
      rotates ? args.rotation + (args.positions == nullptr ? token : args.positions[token]) * 2 * half : nullptr;
  const float* const sine = cosine + half;
  for (std::int64_t i = lane; i < half; i += kLanes) {
    const float a = keys.element(token, i), b = keys.element(token, i + half);
    const float first = a * cosine[i] - b * sine[i], second = b * cosine[i] + a * sine[i];
    for (int q = 0; q < kQueries; ++q) scores[q] += query[q][i] * first + query[q][i + half] * second;
  }
  for (std::int64_t d = 2 * half + lane; d < args.head_dim; d += kLanes) {
    const float key = keys.element(token, d);
    for (int q = 0; q < kQueries; ++q) scores[q] += query[q][d] * key;
  }
  const RowSide& side = args.key;
  if (side.sparse_begin == nullptr || !keys.coded(token)) return;
  const std::int64_t line = token - side.begin;
  for (std::int64_t e = side.sparse_begin[line] + lane; e < side.sparse_begin[line + 1]; e += kLanes) {
    const std::int64_t d = static_cast<std::int64_t>(side.sparse_channel[e]) - keys.kv_head * args.head_dim;
    if (d < 0 || d >= args.head_dim) continue;
    const float excess = side.sparse_excess[e];
    if (d >= 2 * half) {
      for (int q = 0; q < kQueries; ++q) scores[q] += query[q][d] * excess;
      continue;
    }
    const bool upper = d >= half;
    const std::int64_t pair = d - (upper ? half : 0), partner = upper ? pair : pair + half;
    const float own = excess * cosine[pair], other = excess * (upper ? -sine[pair] : sine[pair]);
    for (int q = 0; q < kQueries; ++q) scores[q] += query[q][d] * own + query[q][partner] * other;
  }
}

/// Adds the weighted values of tokens first, first + kWarps, ... of the chunk to `out` [kQueries][kMaxDim] of the warp.
__device__ void warp_sums(const RowAttention& args, const HeadRows& values, std::int64_t begin, std::int64_t count,
                          const float (*weight)[kChunk], float (*out)[kMaxDim]) {
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  float sums[kMost][kQueries] = {};
  for (std::int64_t t = warp; t < count; t += kWarps) {
#pragma unroll
    for (int k = 0; k < kMost; ++k) {
      const std::int64_t d = lane + k * kLanes;
      if (d >= args.head_dim) break;
      const float value = values.element(begin + t, d);
      for (int q = 0; q < kQueries; ++q) sums[k][q] += weight[q][t] * value;
    }
  }
  for (int k = 0; k < kMost; ++k)
    for (int q = 0; q < kQueries; ++q) out[q][lane + k * kLanes] = sums[k][q];
  __syncwarp();
  const RowSide& side = args.value;
  if (side.sparse_begin == nullptr) return;
  for (std::int64_t t = warp; t < count; t += kWarps) {
    if (!values.coded(begin + t)) continue;
    const std::int64_t line = begin + t - side.begin;
    for (std::int64_t e = side.sparse_begin[line] + lane; e < side.sparse_begin[line + 1]; e += kLanes) {
      const std::int64_t d = static_cast<std::int64_t>(side.sparse_channel[e]) - values.kv_head * args.head_dim;
      if (d < 0 || d >= args.head_dim) continue;  // channels of a token are distinct: no two lanes meet
      for (int q = 0; q < kQueries; ++q) out[q][d] += weight[q][t] * side.sparse_excess[e];
    }
    __syncwarp();
  }
}

/// Block (chunk, KV head, query heads); leaves what merge_partials reads.
__global__ void attend_rows(RowAttention args) {
  __shared__ float query[kQueries][kMaxDim];
  __shared__ float weight[kQueries][kChunk];
  __shared__ float sums[kWarps][kQueries][kMaxDim];
  __shared__ float max_of[kQueries];
  __shared__ float sum_of[kQueries];
  const int lane = threadIdx.x % kLanes, warp = threadIdx.x / kLanes;
  const std::int64_t per_kv = args.heads / args.kv_heads;
  const std::int64_t kv_head = blockIdx.y;
  const std::int64_t first_query = static_cast<std::int64_t>(blockIdx.z) * kQueries;
  const std::int64_t queries = per_kv - first_query < kQueries ? per_kv - first_query : kQueries;
  const std::int64_t head = kv_head * per_kv + first_query;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kChunk;
  const std::int64_t count = args.tokens - begin < kChunk ? args.tokens - begin : kChunk;
  for (int q = 0; q < kQueries; ++q)
    for (std::int64_t d = threadIdx.x; d < args.head_dim; d += kThreads)
      query[q][d] = q < queries ? args.query[(head + q) * args.head_dim + d] : 0.0F;
  __syncthreads();

  const HeadRows keys{args.key, kv_head, args.kv_heads, args.head_dim, args.tokens};
  for (std::int64_t t = warp; t < kChunk; t += kWarps) {
    const bool seen = t < count && (args.dead == nullptr || args.dead[begin + t] == 0);
    float scores[kQueries] = {};
    if (seen) lane_scores(args, keys, begin + t, query, scores);
    for (int q = 0; q < kQueries; ++q) {
      for (int step = kLanes / 2; step > 0; step /= 2) scores[q] += __shfl_xor_sync(0xffffffffU, scores[q], step);
      if (args.score_softcap > 0.0F) scores[q] = args.score_softcap * tanhf(scores[q] / args.score_softcap);
      if (lane == 0) weight[q][t] = seen ? scores[q] : -CUDART_INF_F;
    }
  }
  __syncthreads();
  if (warp < kQueries) {  // one warp a query
    float max = -CUDART_INF_F;
    for (int t = lane; t < kChunk; t += kLanes) max = fmaxf(max, weight[warp][t]);
    for (int step = kLanes / 2; step > 0; step /= 2) max = fmaxf(max, __shfl_xor_sync(0xffffffffU, max, step));
    float sum = 0.0F;
    for (int t = lane; t < kChunk; t += kLanes) {
      const float e = max == -CUDART_INF_F ? 0.0F : expf(weight[warp][t] - max);
      weight[warp][t] = e;
      sum += e;
    }
    for (int step = kLanes / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffU, sum, step);
    if (lane == 0) {
      max_of[warp] = max;
      sum_of[warp] = sum;
    }
  }
  __syncthreads();

  const HeadRows values{args.value, kv_head, args.kv_heads, args.head_dim, args.tokens};
  warp_sums(args, values, begin, count, weight, sums[warp]);
  __syncthreads();
  float* const out = args.scratch + (static_cast<std::int64_t>(blockIdx.x) * args.heads + head) * (args.head_dim + 2);
  if (threadIdx.x < queries) {
    out[threadIdx.x * (args.head_dim + 2)] = max_of[threadIdx.x];
    out[threadIdx.x * (args.head_dim + 2) + 1] = sum_of[threadIdx.x];
  }
  for (std::int64_t d = threadIdx.x; d < args.head_dim; d += kThreads)
    for (std::int64_t q = 0; q < queries; ++q) {
      float sum = 0.0F;
      for (int w = 0; w < kWarps; ++w) sum += sums[w][q][d];
      out[q * (args.head_dim + 2) + 2 + d] = sum;
    }
}

static_assert(kWarps == kQueries, "the softmax gives each query a warp");

}  // namespace

std::size_t row_attention_scratch_bytes(std::int64_t heads, std::int64_t head_dim, std::int64_t tokens) noexcept {
  return static_cast<std::size_t>(chunks_of(tokens) * heads * (head_dim + 2)) * sizeof(float);
}

std::string row_attention(const RowAttention& args, void* stream) {
  if (!cuda_available()) return cuda_problem();
  if (args.head_dim > kMaxDim) return "CUDA attention takes head_dim up to " + std::to_string(kMaxDim) + ".";
  if (args.tokens < 1) return "CUDA attention needs at least one token.";
  auto* const queue = static_cast<cudaStream_t>(stream);
  const std::int64_t chunks = chunks_of(args.tokens), per_kv = args.heads / args.kv_heads;
  const dim3 blocks(static_cast<unsigned>(chunks), static_cast<unsigned>(args.kv_heads),
                    static_cast<unsigned>((per_kv + kQueries - 1) / kQueries));
  attend_rows<<<blocks, kThreads, 0, queue>>>(args);
  merge_partials<<<static_cast<unsigned>(args.heads), kThreads, 0, queue>>>(args.scratch, args.heads, args.head_dim,
                                                                            chunks, args.out);
  return launch_status();
}

}  // namespace qs::kernels::cuda
