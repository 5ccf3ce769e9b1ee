#include <immintrin.h>

#include "kernels/bit_fields.h"
#include "kernels/instruction_sets.h"

namespace qs::kernels {
namespace {

/// Eight codes from the kBits bytes at `p`, of which `bytes` are there.
template <int kBits>
__m256i eight_codes(const std::uint8_t* p, std::int64_t bytes) {
  std::uint64_t word = 0;
  if (bytes >= kBits)
    __builtin_memcpy(&word, p, kBits);
  else
    __builtin_memcpy(&word, p, static_cast<std::size_t>(bytes));
  const __m256i mask = _mm256_set1_epi32((1 << kBits) - 1);
  if constexpr (kBits <= 4) {
    const __m256i shift = _mm256_setr_epi32(0, kBits, 2 * kBits, 3 * kBits, 4 * kBits, 5 * kBits, 6 * kBits, 7 * kBits);
    return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word)), shift), mask);
  } else {
    // Four codes take at most 32 bits: the upper four move down as one word.
    const auto low = static_cast<std::uint32_t>(word);
    const auto high = static_cast<std::uint32_t>(word >> (4 * kBits));
    const __m256i words = _mm256_setr_epi32(static_cast<int>(low), static_cast<int>(low), static_cast<int>(low),
                                            static_cast<int>(low), static_cast<int>(high), static_cast<int>(high),
                                            static_cast<int>(high), static_cast<int>(high));
    const __m256i shift = _mm256_setr_epi32(0, kBits, 2 * kBits, 3 * kBits, 0, kBits, 2 * kBits, 3 * kBits);
    return _mm256_and_si256(_mm256_srlv_epi32(words, shift), mask);
  }
}

template <int kBits>
void decode(const FieldRun& run, float* x) {
  const __m256 scale = _mm256_set1_ps(run.scale);
  const __m256 mean = _mm256_set1_ps(run.mean);
  const __m256i half = _mm256_set1_epi32(1 << (kBits - 1));
  const auto values = [&](__m256i codes) {
    const __m256 steps = _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, half));
    return _mm256_add_ps(_mm256_mul_ps(steps, scale), mean);
  };
  std::int64_t i = 0;
  for (; i + 8 <= run.count; i += 8)
    _mm256_storeu_ps(x + i, values(eight_codes<kBits>(run.packed + i / 8 * kBits, kBits)));
  if (i == run.count) return;
  const std::int64_t left = run.count - i;
  alignas(32) float last[8];
  _mm256_store_ps(last, values(eight_codes<kBits>(run.packed + i / 8 * kBits, (left * kBits + 7) / 8)));
  for (std::int64_t j = 0; j < left; ++j) x[i + j] = last[j];
}

}  // namespace

void decode_fields_avx2(const FieldRun& run, float* x) noexcept {
  switch (run.bits) {
    case 1:
      return decode<1>(run, x);
    case 2:
      return decode<2>(run, x);
    case 3:
      return decode<3>(run, x);
    case 4:
      return decode<4>(run, x);
    case 5:
      return decode<5>(run, x);
    case 6:
      return decode<6>(run, x);
    case 7:
      return decode<7>(run, x);
    case 8:
      return decode<8>(run, x);
    default:
      return decode_fields_scalar(run, x);
  }
}

}  // namespace qs::kernels
