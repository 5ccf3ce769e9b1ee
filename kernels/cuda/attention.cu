#include "kernels/cuda/attention_merge.cuh"
#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_common.cuh"

namespace qs::kernels::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kChunk = 128;  ///< tokens of one thread block
constexpr int kQueries = 4;  ///< query heads of one thread block
constexpr int kMaxDim = 256;

std::int64_t chunks_of(std::int64_t tokens) { return (tokens + kChunk - 1) / kChunk; }

/// scores of one token for kQueries heads from a packed key; the query is in shared memory.
template <int kBits>
__device__ void packed_key_scores(const DecodeAttention& args, std::int64_t kv_head, std::int64_t token,
                                  const float (*query)[kMaxDim], float* scores) {
  const std::int64_t blocks = args.quantized_keys / args.group_size;
  const std::int64_t block = kv_head * blocks + token / args.group_size;
  const std::uint8_t* const codes = args.key_codes + block * (args.group_size * args.head_dim * kBits / 8);
  const std::uint16_t* const scale = args.key_scale + block * args.head_dim;
  const std::uint16_t* const low = args.key_min + block * args.head_dim;
  for (std::int64_t d = 0; d < args.head_dim; ++d) {
    const int code = block_code<kBits>(codes, args.group_size, args.head_dim, token % args.group_size, d);
    const float key = half_bits_to_float(scale[d]) * static_cast<float>(code) + half_bits_to_float(low[d]);
    for (int i = 0; i < kQueries; ++i) scores[i] += query[i][d] * key;
  }
}

__device__ void key_scores(const DecodeAttention& args, std::int64_t kv_head, std::int64_t token,
                           const float (*query)[kMaxDim], float* scores) {
  if (token >= args.quantized_keys) {
    const std::int64_t recent = args.tokens - args.quantized_keys;
    const std::uint16_t* const row =
        args.recent_keys + (kv_head * recent + token - args.quantized_keys) * args.head_dim;
    for (std::int64_t d = 0; d < args.head_dim; ++d) {
      const float key = half_bits_to_float(row[d]);
      for (int i = 0; i < kQueries; ++i) scores[i] += query[i][d] * key;
    }
    return;
  }
  switch (args.key_bits) {
    case 2:
      return packed_key_scores<2>(args, kv_head, token, query, scores);
    case 3:
      return packed_key_scores<3>(args, kv_head, token, query, scores);
    case 4:
      return packed_key_scores<4>(args, kv_head, token, query, scores);
    default:
      return packed_key_scores<8>(args, kv_head, token, query, scores);
  }
}

template <int kBits>
__device__ float packed_value(const DecodeAttention& args, std::int64_t kv_head, std::int64_t token,
                              std::int64_t channel) {
  const std::int64_t row = kv_head * args.quantized_values + token;
  const std::int64_t group = row * (args.head_dim / args.group_size) + channel / args.group_size;
  const std::uint8_t* const codes = args.value_codes + row * (args.head_dim * kBits / 8);
  const int code = block_code<kBits>(codes, 1, args.head_dim, 0, channel);
  return half_bits_to_float(args.value_scale[group]) * static_cast<float>(code) +
         half_bits_to_float(args.value_min[group]);
}

__device__ float value_at(const DecodeAttention& args, std::int64_t kv_head, std::int64_t token, std::int64_t channel) {
  if (token >= args.quantized_values) {
    const std::int64_t recent = args.tokens - args.quantized_values;
    return half_bits_to_float(
        args.recent_values[(kv_head * recent + token - args.quantized_values) * args.head_dim + channel]);
  }
  switch (args.value_bits) {
    case 2:
      return packed_value<2>(args, kv_head, token, channel);
    case 3:
      return packed_value<3>(args, kv_head, token, channel);
    case 4:
      return packed_value<4>(args, kv_head, token, channel);
    default:
      return packed_value<8>(args, kv_head, token, channel);
  }
}

/// Block (chunk, KV head, query heads): scratch[(chunk * heads + head) * (head_dim + 2)] = maximum, sum, unnormalised
/// output.
__global__ void attend_chunk(DecodeAttention args) {
  __shared__ float query[kQueries][kMaxDim];
  __shared__ float weight[kQueries][kChunk];
  __shared__ float max_of[kQueries];
  __shared__ float sum_of[kQueries];
  const std::int64_t per_kv = args.heads / args.kv_heads;
  const std::int64_t kv_head = blockIdx.y;
  const std::int64_t first_query = static_cast<std::int64_t>(blockIdx.z) * kQueries;
  const std::int64_t queries = per_kv - first_query < kQueries ? per_kv - first_query : kQueries;
  const std::int64_t head = kv_head * per_kv + first_query;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.x) * kChunk;
  const std::int64_t count = args.tokens - begin < kChunk ? args.tokens - begin : kChunk;
  for (int i = 0; i < kQueries; ++i)
    for (std::int64_t d = threadIdx.x; d < args.head_dim; d += kThreads)
      query[i][d] = i < queries ? args.query[(head + i) * args.head_dim + d] : 0.0F;
  __syncthreads();

  float scores[kQueries] = {};
  if (threadIdx.x < count) key_scores(args, kv_head, begin + threadIdx.x, query, scores);
  for (int i = 0; i < kQueries; ++i) weight[i][threadIdx.x] = scores[i];
  __syncthreads();
  if (threadIdx.x < kQueries) {
    float max = weight[threadIdx.x][0];
    for (std::int64_t t = 1; t < count; ++t) max = fmaxf(max, weight[threadIdx.x][t]);
    max_of[threadIdx.x] = max;
  }
  __syncthreads();
  for (int i = 0; i < kQueries; ++i)
    weight[i][threadIdx.x] = threadIdx.x < count ? expf(weight[i][threadIdx.x] - max_of[i]) : 0.0F;
  __syncthreads();
  if (threadIdx.x < kQueries) {
    float sum = 0.0F;
    for (std::int64_t t = 0; t < count; ++t) sum += weight[threadIdx.x][t];
    sum_of[threadIdx.x] = sum;
  }
  __syncthreads();

  float* const out = args.scratch + (static_cast<std::int64_t>(blockIdx.x) * args.heads + head) * (args.head_dim + 2);
  if (threadIdx.x < queries) {
    out[threadIdx.x * (args.head_dim + 2)] = max_of[threadIdx.x];
    out[threadIdx.x * (args.head_dim + 2) + 1] = sum_of[threadIdx.x];
  }
  for (std::int64_t d = threadIdx.x; d < args.head_dim; d += kThreads) {
    float sums[kQueries] = {};
    for (std::int64_t t = 0; t < count; ++t) {
      const float value = value_at(args, kv_head, begin + t, d);
      for (int i = 0; i < kQueries; ++i) sums[i] += weight[i][t] * value;
    }
    for (int i = 0; i < queries; ++i) out[i * (args.head_dim + 2) + 2 + d] = sums[i];
  }
}

}  // namespace

std::size_t attention_scratch_bytes(std::int64_t heads, std::int64_t head_dim, std::int64_t tokens) noexcept {
  return static_cast<std::size_t>(chunks_of(tokens) * heads * (head_dim + 2)) * sizeof(float);
}

std::string decode_attention(const DecodeAttention& args, void* stream) {
  if (!cuda_available()) return cuda_problem();
  if (args.head_dim > kMaxDim) return "CUDA attention takes head_dim up to " + std::to_string(kMaxDim) + ".";
  if (args.tokens < 1) return "CUDA attention needs at least one token.";
  auto* const queue = static_cast<cudaStream_t>(stream);
  const std::int64_t chunks = chunks_of(args.tokens);
  const std::int64_t per_kv = args.heads / args.kv_heads;
  const dim3 blocks(static_cast<unsigned>(chunks), static_cast<unsigned>(args.kv_heads),
                    static_cast<unsigned>((per_kv + kQueries - 1) / kQueries));
  attend_chunk<<<blocks, kThreads, 0, queue>>>(args);
  merge_partials<<<static_cast<unsigned>(args.heads), kThreads, 0, queue>>>(args.scratch, args.heads, args.head_dim,
                                                                            chunks, args.out);
  return launch_status();
}

}  // namespace qs::kernels::cuda
