#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx512.h"
#include "kernels/lanes_common.h"
#include "kernels/spqr.h"

namespace qs::kernels {
namespace {

/// Sixteen codes of four words, four neighbouring ones each from bit 0 on.
V::F spread_codes(const std::uint32_t* words, int bits) {
  const __m512i four = _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(words)));
  const __m512i all = _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), four);
  const __m512i place = _mm512_setr_epi32(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
  const __m512i shifted = _mm512_srlv_epi32(all, _mm512_mullo_epi32(place, _mm512_set1_epi32(bits)));
  return _mm512_cvtepi32_ps(_mm512_and_si512(shifted, _mm512_set1_epi32((1 << bits) - 1)));
}

}  // namespace
}  // namespace qs::kernels

#define QS_NAME(function) function##_avx512
#include "kernels/spqr_lanes.inc"
