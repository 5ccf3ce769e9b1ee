#include "kernels/cuda/cuda_kernels.h"
#include "kernels/cuda/device_common.cuh"

namespace qs::kernels::cuda {
namespace {

constexpr int kTileRows = 16;
constexpr int kSlices = 16;  ///< thread groups that share the groups and the outliers of a row tile

__device__ float statistic_of(const SpqrStatistic& statistic, const SpqrWeight& weight, std::int64_t group,
                              std::int64_t row) {
  const std::int64_t index = group * weight.out_features + row;
  if (statistic.bits == 0)
    return statistic.plain == nullptr ? statistic.constant : half_bits_to_float(statistic.plain[index]);
  const std::int64_t bit = index * statistic.bits;
  const int shift = static_cast<int>(bit % 8);
  unsigned word = statistic.codes[bit / 8];
  if (shift + statistic.bits > 8) word |= static_cast<unsigned>(statistic.codes[bit / 8 + 1]) << 8;
  const auto code = static_cast<float>((word >> shift) & ((1U << statistic.bits) - 1U));
  const std::int64_t second = group * (weight.out_features / weight.run) + row / weight.run;
  return half_bits_to_float(statistic.scale[second]) * (code - half_bits_to_float(statistic.zero[second]));
}

__device__ float scale_of(const SpqrWeight& weight, std::int64_t group, std::int64_t row) {
  return half_bits_to_float(float_to_half_bits(statistic_of(weight.scales, weight, group, row)));
}

/// Eight neighbouring codes of a row of a tile, from bit 0 on; they lie in one unit, at 8 bits in two units of 4 bytes.
template <int kWidth>
__device__ std::uint64_t eight_codes(const std::uint8_t* run, std::int64_t rows, std::int64_t columns, std::int64_t row,
                                     std::int64_t column) {
  const int unit = unit_bytes(columns * kWidth / 8);
  const std::int64_t byte = column * kWidth / 8;
  const std::uint8_t* const p = run + (byte / unit * rows + row) * unit + byte % unit;
  if constexpr (kWidth == 1) {
    return *p;
  } else if constexpr (kWidth == 2) {
    return *reinterpret_cast<const std::uint16_t*>(p);
  } else {
    std::uint64_t word = *reinterpret_cast<const std::uint32_t*>(p);
    if constexpr (kWidth == 8)
      word |= static_cast<std::uint64_t>(*reinterpret_cast<const std::uint32_t*>(p + 4 * rows)) << 32;
    return word;
  }
}

/// Block: one tile of 16 rows and one token; thread (row, slice).
template <int kBits>
__global__ void spqr_rows(SpqrProduct args) {
  __shared__ float partial[kSlices][kTileRows];
  constexpr int kWidth = kBits == 3 ? 2 : kBits;
  const SpqrWeight& weight = args.weight;
  const std::int64_t in = weight.in_features;
  const std::int64_t tile = static_cast<std::int64_t>(blockIdx.x) * kTileRows;
  const std::int64_t left = weight.out_features - tile;
  const std::int64_t rows = left < kTileRows ? left : kTileRows;
  const std::int64_t row = tile + threadIdx.x;
  const std::int64_t groups = in / weight.group_size;
  const std::uint8_t* const codes = weight.codes + tile * (in * kBits / 8);
  const float* const x = args.x + static_cast<std::int64_t>(blockIdx.y) * in;
  float total = 0.0F;
  if (threadIdx.x < rows) {
    for (std::int64_t group = threadIdx.y; group < groups; group += kSlices) {
      float dot = 0.0F;
      float sum = 0.0F;
      for (std::int64_t i = group * weight.group_size; i < (group + 1) * weight.group_size; i += 8) {
        std::uint64_t low = eight_codes<kWidth>(codes, rows, in, threadIdx.x, i);
        std::uint64_t high = 0;
        if constexpr (kBits == 3) high = eight_codes<1>(codes + rows * in / 4, rows, in, threadIdx.x, i);
        for (int k = 0; k < 8; ++k) {
          const unsigned code = static_cast<unsigned>(low & ((1U << kWidth) - 1U)) +
                                (kBits == 3 ? 4U * static_cast<unsigned>(high & 1U) : 0U);
          dot += x[i + k] * static_cast<float>(code);
          sum += x[i + k];
          low >>= kWidth;
          high >>= 1;
        }
      }
      total += scale_of(weight, group, row) * (dot - statistic_of(weight.zeros, weight, group, row) * sum);
    }
    const float top = static_cast<float>((1 << kBits) - 1);
    const std::int32_t end = weight.outlier_rows[row + 1];
    for (std::int32_t k = weight.outlier_rows[row] + static_cast<std::int32_t>(threadIdx.y); k < end; k += kSlices) {
      const std::int64_t column = weight.outlier_columns[k];
      const std::int64_t group = column / weight.group_size;
      const float zero = statistic_of(weight.zeros, weight, group, row);
      const float dense = scale_of(weight, group, row) * (fminf(top, fmaxf(0.0F, rintf(zero))) - zero);
      total += (half_bits_to_float(weight.outlier_values[k]) - dense) * x[column];
    }
  }
  partial[threadIdx.y][threadIdx.x] = total;
  __syncthreads();
  if (threadIdx.y != 0 || threadIdx.x >= rows) return;
  for (int slice = 1; slice < kSlices; ++slice) total += partial[slice][threadIdx.x];
  args.y[static_cast<std::int64_t>(blockIdx.y) * weight.out_features + row] = total;
}

}  // namespace

std::string spqr_product(const SpqrProduct& args, void* stream) {
  if (!cuda_available()) return cuda_problem();
  if (args.tokens * args.weight.out_features == 0) return {};
  auto* const queue = static_cast<cudaStream_t>(stream);
  const dim3 blocks(static_cast<unsigned>((args.weight.out_features + kTileRows - 1) / kTileRows),
                    static_cast<unsigned>(args.tokens));
  const dim3 threads(kTileRows, kSlices);
  switch (args.weight.bits) {
    case 2:
      spqr_rows<2><<<blocks, threads, 0, queue>>>(args);
      break;
    case 3:
      spqr_rows<3><<<blocks, threads, 0, queue>>>(args);
      break;
    case 4:
      spqr_rows<4><<<blocks, threads, 0, queue>>>(args);
      break;
    default:
      spqr_rows<8><<<blocks, threads, 0, queue>>>(args);
  }
  return launch_status();
}

}  // namespace qs::kernels::cuda
