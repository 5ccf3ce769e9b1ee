#pragma once

#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <string>

namespace qs::kernels::cuda {

inline std::string error_text(cudaError_t status) {
  return status == cudaSuccess ? std::string() : std::string("CUDA: ") + cudaGetErrorString(status);
}

/// Status of the launch just made.
inline std::string launch_status() { return error_text(cudaGetLastError()); }

__device__ inline float half_bits_to_float(std::uint16_t bits) { return __half2float(__ushort_as_half(bits)); }

__device__ inline std::uint16_t float_to_half_bits(float value) { return __half_as_ushort(__float2half_rn(value)); }

/// Bytes of a unit of a packed block whose run has run_bytes bytes a row.
__host__ __device__ inline int unit_bytes(std::int64_t run_bytes) {
  if (run_bytes % 4 == 0) return 4;
  return run_bytes % 2 == 0 ? 2 : 1;
}

/// Code `column` of row `row` of a packed block of `rows` rows (a packed row is a block of one).
template <int kBits>
__device__ inline int block_code(const std::uint8_t* block, std::int64_t rows, std::int64_t columns, std::int64_t row,
                                 std::int64_t column) {
  constexpr int kWidth = kBits == 3 ? 2 : kBits;
  const std::int64_t run_bytes = columns * kWidth / 8;
  const int unit = unit_bytes(run_bytes);
  const std::int64_t byte = column * kWidth / 8;
  const int low = block[(byte / unit * rows + row) * unit + byte % unit] >> (column * kWidth % 8);
  int code = low & ((1 << kWidth) - 1);
  if constexpr (kBits == 3) {
    const std::int64_t high_bytes = columns / 8;
    const int high_unit = unit_bytes(high_bytes);
    const std::int64_t high_byte = column / 8;
    const std::uint8_t* const run = block + rows * run_bytes;
    const int high = run[(high_byte / high_unit * rows + row) * high_unit + high_byte % high_unit] >> (column % 8);
    code |= (high & 1) << 2;
  }
  return code;
}

}  // namespace qs::kernels::cuda
