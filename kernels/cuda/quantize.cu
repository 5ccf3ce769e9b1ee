#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_common.cuh"

namespace qs::kernels::cuda {
namespace {

constexpr int kThreads = 128;

/// A1 on `count` values `stride` apart, the operations of the scalar form in its order.
__device__ void quantize_group(const float* x, std::int64_t count, std::int64_t stride, int bits, std::uint8_t* codes,
                               std::uint16_t* scale, std::uint16_t* group_min) {
  float low = x[0];
  float high = x[0];
  for (std::int64_t i = 1; i < count; ++i) {
    low = fminf(low, x[i * stride]);
    high = fmaxf(high, x[i * stride]);
  }
  const auto top = static_cast<float>((1 << bits) - 1);
  const float step = __fdiv_rn(__fsub_rn(high, low), top);
  *scale = float_to_half_bits(step);
  *group_min = float_to_half_bits(low);
  for (std::int64_t i = 0; i < count; ++i) {
    float code = 0.0F;
    if (step > 0.0F) code = __fdiv_rn(__fsub_rn(x[i * stride], low), step);
    codes[i * stride] = static_cast<std::uint8_t>(rintf(fminf(fmaxf(code, 0.0F), top)));
  }
}

/// One thread a (head and block, channel).
__global__ void quantize_key_groups(KeyQuantization args) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  const std::int64_t blocks = args.kv_heads * (args.tokens / args.group_size);
  if (index >= blocks * args.head_dim) return;
  const std::int64_t block = index / args.head_dim;
  const std::int64_t first = block * args.group_size * args.head_dim + index % args.head_dim;
  quantize_group(args.x + first, args.group_size, args.head_dim, args.bits, args.codes + first, args.scale + index,
                 args.group_min + index);
}

/// One thread a group.
__global__ void quantize_value_groups(ValueQuantization args) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= args.kv_heads * args.tokens * (args.head_dim / args.group_size)) return;
  quantize_group(args.x + index * args.group_size, args.group_size, 1, args.bits, args.codes + index * args.group_size,
                 args.scale + index, args.group_min + index);
}

/// One thread a byte of a packed block of `rows` rows; blocks follow each other in codes and in packed.
__global__ void pack_blocks(const std::uint8_t* codes, std::int64_t bytes, std::int64_t rows, std::int64_t columns,
                            int bits, std::uint8_t* packed) {
  const std::int64_t index = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= bytes) return;
  const std::int64_t block_bytes = rows * columns * bits / 8;
  const std::int64_t block = index / block_bytes;
  std::int64_t at = index % block_bytes;
  int width = bits == 3 ? 2 : bits;
  int shift = 0;
  if (bits == 3 && at >= rows * columns / 4) {
    at -= rows * columns / 4;
    width = 1;
    shift = 2;
  }
  const int unit = unit_bytes(columns * width / 8);
  const std::int64_t row = at / unit % rows;
  const std::int64_t byte = at / unit / rows * unit + at % unit;
  const std::uint8_t* const from = codes + (block * rows + row) * columns + byte * (8 / width);
  int value = 0;
  for (int j = 0; j * width < 8; ++j) value |= ((from[j] >> shift) & ((1 << width) - 1)) << (j * width);
  packed[index] = static_cast<std::uint8_t>(value);
}

unsigned grid(std::int64_t threads) { return static_cast<unsigned>((threads + kThreads - 1) / kThreads); }

}  // namespace

std::string quantize_keys(const KeyQuantization& args, void* stream) {
  if (!cuda_available()) return cuda_problem();
  if (args.kv_heads * args.tokens * args.head_dim == 0) return {};
  auto* const queue = static_cast<cudaStream_t>(stream);
  quantize_key_groups<<<grid(args.kv_heads * (args.tokens / args.group_size) * args.head_dim), kThreads, 0, queue>>>(
      args);
  const std::int64_t bytes = args.kv_heads * args.tokens * args.head_dim * args.bits / 8;
  pack_blocks<<<grid(bytes), kThreads, 0, queue>>>(args.codes, bytes, args.group_size, args.head_dim, args.bits,
                                                   args.packed);
  return launch_status();
}

std::string quantize_values(const ValueQuantization& args, void* stream) {
  if (!cuda_available()) return cuda_problem();
  if (args.kv_heads * args.tokens * args.head_dim == 0) return {};
  auto* const queue = static_cast<cudaStream_t>(stream);
  quantize_value_groups<<<grid(args.kv_heads * args.tokens * (args.head_dim / args.group_size)), kThreads, 0, queue>>>(
      args);
  const std::int64_t bytes = args.kv_heads * args.tokens * args.head_dim * args.bits / 8;
  pack_blocks<<<grid(bytes), kThreads, 0, queue>>>(args.codes, bytes, 1, args.head_dim, args.bits, args.packed);
  return launch_status();
}

}  // namespace qs::kernels::cuda
