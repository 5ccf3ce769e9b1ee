#include "kernels/gemv.h"
#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx512.h"

namespace qs::kernels {
namespace {

struct Vnni : V {
  static constexpr std::int64_t kDotBytes = 64;
  static I dot_bytes(I sums, const std::uint8_t* a, const std::int8_t* w) {
    return _mm512_dpbusd_epi32(sums, _mm512_loadu_si512(a), _mm512_loadu_si512(w));
  }
};

}  // namespace
}  // namespace qs::kernels

#define QS_DOT Vnni
#define QS_NAME(function) function##_vnni
#include "kernels/int8_gemm_lanes.inc"
