#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_common.cuh"

namespace qs::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kRowsOfBlock = 2 * kThreads;  ///< two adjacent outputs a thread
constexpr int kTileColumns = 64;            ///< columns whose tables are in shared memory at a time
constexpr int kRuns = kTileColumns / 8;
constexpr int kSliceBlocks = 512;  ///< blocks that fill a large card a few times over

/// Slices of the inner dimension, each a block of its own whose partial sums are added by a second kernel in a fixed
/// order.
int slices_of(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) {
  const std::int64_t blocks = tokens * ((out_features + kRowsOfBlock - 1) / kRowsOfBlock);
  const std::int64_t wanted = blocks > 0 ? (kSliceBlocks + blocks - 1) / blocks : 1;
  const std::int64_t tiles = (in_features + kTileColumns - 1) / kTileColumns;
  return static_cast<int>(wanted < tiles ? wanted : tiles);
}

/// Block: 512 rows, one token, the tiles [slice * tiles / slices, (slice + 1) * tiles / slices).
__global__ void lut_rows(LutProduct args, int slices, float* partial) {
  __shared__ float tables[kRuns][256];
  __shared__ float sums[2];  ///< of the inputs of either word of the tile
  const std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kRowsOfBlock + 2 * threadIdx.x;
  const std::int64_t token = blockIdx.y;
  const std::int64_t tiles = (args.in_features + kTileColumns - 1) / kTileColumns;
  const std::int64_t words = (args.in_features + 31) / 32;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.z) * tiles / slices;
  const std::int64_t end = (static_cast<std::int64_t>(blockIdx.z) + 1) * tiles / slices;
  const float* const x = args.x + token * args.in_features;
  const bool active[2] = {row < args.out_features, row + 1 < args.out_features};
  float total[2] = {0.0F, 0.0F};
  for (std::int64_t tile = begin; tile < end; ++tile) {
    for (int run = 0; run < kRuns; ++run) {
      // Each thread is one pattern of signs of the run.
      float sum = 0.0F;
      for (int k = 0; k < 8; ++k) {
        const std::int64_t column = tile * kTileColumns + run * 8 + k;
        const float value = column < args.in_features ? x[column] : 0.0F;
        sum += (threadIdx.x >> k & 1U) != 0 ? value : -value;
      }
      tables[run][threadIdx.x] = sum;
    }
    __syncthreads();
    if (threadIdx.x < 2) {
      sums[threadIdx.x] = 0.0F;
      for (int run = 0; run < 4; ++run) sums[threadIdx.x] += tables[4 * threadIdx.x + run][255];
    }
    __syncthreads();
    for (int half = 0; half < 2; ++half) {
      const std::int64_t word = tile * 2 + half;
      if (word >= words) break;
      const std::int64_t group = word * 32 / args.group_size;
      for (int plane = 0; plane < args.bits; ++plane) {
        const std::int64_t at = (word * args.bits + plane) * args.out_features + row;
        const std::int64_t scale = (group * args.bits + plane) * args.out_features + row;
        for (int r = 0; r < 2; ++r) {
          if (!active[r]) continue;
          const unsigned packed = args.planes[at + r];
          float sum = 0.0F;
          for (int run = 0; run < 4; ++run) sum += tables[4 * half + run][packed >> (8 * run) & 255U];
          total[r] += half_bits_to_float(args.alpha[scale + r]) * sum;
        }
      }
      if (args.offset != nullptr)
        for (int r = 0; r < 2; ++r)
          if (active[r]) total[r] += half_bits_to_float(args.offset[group * args.out_features + row + r]) * sums[half];
    }
    __syncthreads();
  }
  float* const out = partial + (static_cast<std::int64_t>(blockIdx.z) * args.tokens + token) * args.out_features + row;
  for (int r = 0; r < 2; ++r)
    if (active[r]) out[r] = total[r];
}

__global__ void add_slices(const float* partial, int slices, std::int64_t count, float* y) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float total = 0.0F;
  for (int slice = 0; slice < slices; ++slice) total += partial[slice * count + i];
  y[i] = total;
}

}  // namespace

std::size_t lut_scratch_bytes(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) noexcept {
  return static_cast<std::size_t>(slices_of(tokens, out_features, in_features) * tokens * out_features) * sizeof(float);
}

std::string lut_gemm(const LutProduct& args, void* stream) {
  if (!cuda_available()) return cuda_problem();
  if (args.group_size % 32 != 0 && args.group_size != args.in_features)
    return "CUDA: LUT-GEMM needs groups of a multiple of 32 columns.";
  const std::int64_t count = args.tokens * args.out_features;
  if (count == 0) return {};
  auto* const queue = static_cast<cudaStream_t>(stream);
  const int slices = slices_of(args.tokens, args.out_features, args.in_features);
  const dim3 blocks(static_cast<unsigned>((args.out_features + kRowsOfBlock - 1) / kRowsOfBlock),
                    static_cast<unsigned>(args.tokens), static_cast<unsigned>(slices));
  float* const partial = slices > 1 ? args.scratch : args.y;
  lut_rows<<<blocks, kThreads, 0, queue>>>(args, slices, partial);
  if (slices > 1)
    add_slices<<<static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, queue>>>(partial, slices, count,
                                                                                                 args.y);
  return launch_status();
}

}  // namespace qs::kernels::cuda
