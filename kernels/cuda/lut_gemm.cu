#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_common.cuh"

namespace qs::kernels::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPairs = 2;  ///< pairs of adjacent outputs a thread
constexpr int kRowsOfBlock = 2 * kPairs * kThreads;
constexpr int kTileColumns = 64;  ///< columns whose tables are in shared memory at a time
constexpr int kRuns = kTileColumns / 8;
constexpr int kSliceBlocks = 1024;  ///< blocks that fill a large card a few times over

/// Slices of the inner dimension, each a block of its own whose partial sums are added by a second kernel in a fixed
/// order.
int slices_of(std::int64_t tokens, std::int64_t out_features, std::int64_t in_features) {
  const std::int64_t blocks = tokens * ((out_features + kRowsOfBlock - 1) / kRowsOfBlock);
  const std::int64_t wanted = blocks > 0 ? (kSliceBlocks + blocks - 1) / blocks : 1;
  const std::int64_t tiles = (in_features + kTileColumns - 1) / kTileColumns;
  return static_cast<int>(wanted < tiles ? wanted : tiles);
}

/// The 256 signed sums of each run of a tile, from 16 sums of either half of the run. Ends with all threads in step.
__device__ void build_tables(const float* x, std::int64_t first_column, std::int64_t in_features,
                             float (&halves)[2 * kRuns][16], float (&tables)[kRuns][256]) {
  const int half = static_cast<int>(threadIdx.x) / 16;
  const unsigned pattern = threadIdx.x % 16;
  float sum = 0.0F;
  for (int k = 0; k < 4; ++k) {
    const std::int64_t column = first_column + 4 * half + k;
    const float value = column < in_features ? x[column] : 0.0F;
    sum += (pattern >> k & 1U) != 0 ? value : -value;
  }
  halves[half][pattern] = sum;
  __syncthreads();
  for (int run = 0; run < kRuns; ++run)
    tables[run][threadIdx.x] = halves[2 * run][threadIdx.x % 16] + halves[2 * run + 1][threadIdx.x / 16];
  __syncthreads();
}
static_assert(kThreads == 16 * 2 * kRuns);

__device__ float look_up(unsigned word, const float (*tables)[256]) {
  return (tables[0][word & 255U] + tables[1][word >> 8 & 255U]) +
         (tables[2][word >> 16 & 255U] + tables[3][word >> 24]);
}

/// Block: 1024 rows, one token, the tiles [slice * tiles / slices, (slice + 1) * tiles / slices).
__global__ void lut_rows(LutProduct args, int slices, float* partial) {
  __shared__ float halves[2 * kRuns][16];
  __shared__ float tables[kRuns][256];
  const std::int64_t first_row = static_cast<std::int64_t>(blockIdx.x) * kRowsOfBlock + 2 * threadIdx.x;
  const std::int64_t token = blockIdx.y;
  const std::int64_t tiles = (args.in_features + kTileColumns - 1) / kTileColumns;
  const std::int64_t words = (args.in_features + 31) / 32;
  const std::int64_t begin = static_cast<std::int64_t>(blockIdx.z) * tiles / slices;
  const std::int64_t end = (static_cast<std::int64_t>(blockIdx.z) + 1) * tiles / slices;
  const float* const x = args.x + token * args.in_features;
  float totals[kPairs][2] = {};
  for (std::int64_t tile = begin; tile < end; ++tile) {
    build_tables(x, tile * kTileColumns, args.in_features, halves, tables);
    for (int half = 0; half < 2 && 2 * tile + half < words; ++half) {
      const std::int64_t word = 2 * tile + half;
      const std::int64_t group = word * 32 / args.group_size;
      const float(*const of_word)[256] = tables + 4 * half;
      const float sum = look_up(~0U, of_word);
      for (int pair = 0; pair < kPairs; ++pair) {
        const std::int64_t row = first_row + static_cast<std::int64_t>(pair) * 2 * kThreads;
        if (row >= args.out_features) break;
        const int count = row + 1 < args.out_features ? 2 : 1;
        for (int r = 0; r < count; ++r) {
          for (int plane = 0; plane < args.bits; ++plane) {
            const unsigned packed = args.planes[(word * args.bits + plane) * args.out_features + row + r];
            const std::uint16_t alpha = args.alpha[(group * args.bits + plane) * args.out_features + row + r];
            totals[pair][r] += half_bits_to_float(alpha) * look_up(packed, of_word);
          }
          if (args.offset != nullptr)
            totals[pair][r] += half_bits_to_float(args.offset[group * args.out_features + row + r]) * sum;
        }
      }
    }
    __syncthreads();
  }
  float* const out = partial + (static_cast<std::int64_t>(blockIdx.z) * args.tokens + token) * args.out_features;
  for (int pair = 0; pair < kPairs; ++pair)
    for (int r = 0; r < 2; ++r) {
      const std::int64_t row = first_row + static_cast<std::int64_t>(pair) * 2 * kThreads + r;
      if (row < args.out_features) out[row] = totals[pair][r];
    }
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
