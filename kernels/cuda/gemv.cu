#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_common.cuh"

namespace qs::kernels::cuda {
namespace {

constexpr int kTileRows = 16;
constexpr int kSlices = 8;  ///< thread groups that share the groups of a row tile

/// Block: one tile of 16 rows and one token; thread (row, slice).
template <int kBits>
__global__ void low_bit_rows(LowBitGemv args) {
  __shared__ float partial[kSlices][kTileRows];
  const std::int64_t tile = static_cast<std::int64_t>(blockIdx.x) * kTileRows;
  const std::int64_t left = args.out_features - tile;
  const std::int64_t rows = left < kTileRows ? left : kTileRows;
  const std::int64_t groups = args.in_features / args.group_size;
  const std::uint8_t* const codes = args.codes + tile * (args.in_features * kBits / 8);
  const float* const x = args.x + static_cast<std::int64_t>(blockIdx.y) * args.in_features;
  float total = 0.0F;
  if (threadIdx.x < rows)
    for (std::int64_t group = threadIdx.y; group < groups; group += kSlices) {
      float dot = 0.0F;
      float sum = 0.0F;
      for (std::int64_t i = group * args.group_size; i < (group + 1) * args.group_size; ++i) {
        dot += x[i] * static_cast<float>(block_code<kBits>(codes, rows, args.in_features, threadIdx.x, i));
        sum += x[i];
      }
      const std::int64_t at = (tile + threadIdx.x) * groups + group;
      total += half_bits_to_float(args.scale[at]) * (dot - static_cast<float>(args.zero_point[at]) * sum);
    }
  partial[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || threadIdx.x >= rows) return;
  for (int slice = 1; slice < kSlices; ++slice) total += partial[slice][threadIdx.x];
  args.y[static_cast<std::int64_t>(blockIdx.y) * args.out_features + tile + threadIdx.x] = total;
}

constexpr int kTile = 16;
constexpr int kDepth = 64;  ///< bytes of the inner dimension in shared memory at a time

/// Block: a 16 x 16 tile of y, one thread an element. Codes of x become signed by taking 128 off; code_sum puts it
/// back.
__global__ void int8_tile(Int8Product args) {
  __shared__ int x_tile[kTile][kDepth / 4 + 1];
  __shared__ int w_tile[kTile][kDepth / 4 + 1];
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kTile + threadIdx.x;
  const std::int64_t token = static_cast<std::int64_t>(blockIdx.y) * kTile + threadIdx.y;
  int dot = 0;
  for (std::int64_t begin = 0; begin < args.in_features; begin += kDepth) {
    const std::int64_t first = begin + 4 * threadIdx.x;
    const std::int64_t w_row = static_cast<std::int64_t>(blockIdx.x) * kTile + threadIdx.y;
    unsigned x_word = 0;
    unsigned w_word = 0;
    for (int j = 0; j < 4 && first + j < args.in_features; ++j) {
      if (token < args.tokens)
        x_word |= static_cast<unsigned>(args.x_codes[token * args.in_features + first + j] ^ 0x80U) << (8 * j);
      if (w_row < args.out_features)
        w_word |= static_cast<unsigned>(static_cast<std::uint8_t>(args.codes[w_row * args.in_features + first + j]))
                  << (8 * j);
    }
    x_tile[threadIdx.y][threadIdx.x] = static_cast<int>(x_word);
    w_tile[threadIdx.y][threadIdx.x] = static_cast<int>(w_word);
    __syncthreads();
    for (int k = 0; k < kDepth / 4; ++k) dot = __dp4a(x_tile[threadIdx.y][k], w_tile[threadIdx.x][k], dot);
    __syncthreads();
  }
  if (row >= args.out_features || token >= args.tokens) return;
  const std::int64_t zx = args.x_zero_point[token];
  const std::int64_t zw = args.zero_point != nullptr ? args.zero_point[row] : 0;
  const std::int64_t sum = args.code_sum[row];
  const std::int64_t exact = dot + 128 * sum - zx * sum - zw * args.x_code_sum[token] + args.in_features * zx * zw;
  args.y[token * args.out_features + row] = static_cast<float>(exact) * (args.x_scale[token] * args.scale[row]);
}

}  // namespace

std::string low_bit_gemv(const LowBitGemv& args, void* stream) {
  if (!cuda_available()) return cuda_problem();
  if (args.tokens * args.out_features == 0) return {};
  auto* const queue = static_cast<cudaStream_t>(stream);
  const dim3 blocks(static_cast<unsigned>((args.out_features + kTileRows - 1) / kTileRows),
                    static_cast<unsigned>(args.tokens));
  const dim3 threads(kTileRows, kSlices);
  switch (args.bits) {
    case 2:
      low_bit_rows<2><<<blocks, threads, 0, queue>>>(args);
      break;
    case 3:
      low_bit_rows<3><<<blocks, threads, 0, queue>>>(args);
      break;
    case 4:
      low_bit_rows<4><<<blocks, threads, 0, queue>>>(args);
      break;
    default:
      low_bit_rows<8><<<blocks, threads, 0, queue>>>(args);
  }
  return launch_status();
}

std::string int8_gemm(const Int8Product& args, void* stream) {
  if (!cuda_available()) return cuda_problem();
  if (args.tokens * args.out_features == 0) return {};
  const dim3 blocks(static_cast<unsigned>((args.out_features + kTile - 1) / kTile),
                    static_cast<unsigned>((args.tokens + kTile - 1) / kTile));
  int8_tile<<<blocks, dim3(kTile, kTile), 0, static_cast<cudaStream_t>(stream)>>>(args);
  return launch_status();
}

}  // namespace qs::kernels::cuda
