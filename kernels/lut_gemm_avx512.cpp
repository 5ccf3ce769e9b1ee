#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx512.h"
#include "kernels/lut_gemm.h"
#include "kernels/lut_gemm_lanes.inc"

namespace qs::kernels {

/// Tables of bytes are looked up by the AVX2 form, which memory bounds already. 16-bit tables have no use here: a
/// permute of f32 sums covers as many inputs.
void lut_gemm_avx512(const BitPlaneWeight& weight, const GemvArgs& args, LutArithmetic arithmetic) noexcept {
  if (arithmetic == LutArithmetic::Int8 || !lanes_fit_planes(weight)) return lut_gemm_avx2(weight, args, arithmetic);
  lut_gemm_f32(weight, args);
}

}  // namespace qs::kernels
