#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx2.h"
#include "kernels/lanes_common.h"
#include "kernels/spqr.h"

namespace qs::kernels {
namespace {

/// Eight codes of two words, four neighbouring ones each from bit 0 on.
V::F spread_codes(const std::uint32_t* words, int bits) {
  const __m256i low = _mm256_set1_epi32(static_cast<int>(words[0]));
  const __m256i all = _mm256_blend_epi32(low, _mm256_set1_epi32(static_cast<int>(words[1])), 0xF0);
  const __m256i place = _mm256_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3);
  const __m256i shifted = _mm256_srlv_epi32(all, _mm256_mullo_epi32(place, _mm256_set1_epi32(bits)));
  return _mm256_cvtepi32_ps(_mm256_and_si256(shifted, _mm256_set1_epi32((1 << bits) - 1)));
}

}  // namespace
}  // namespace qs::kernels

#define QS_NAME(function) function##_avx2
#include "kernels/spqr_lanes.inc"
