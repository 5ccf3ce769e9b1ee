#pragma once

// Sixteen lanes for the *_lanes.inc kernels. Everything has internal linkage: only files compiled for AVX-512 include
// this.

#include <immintrin.h>

#include <cstdint>

namespace qs::kernels {
namespace {

struct V {
  using F = __m512;
  using I = __m512i;
  static constexpr std::int64_t kLanes = 16;

  static __mmask16 first(std::int64_t n) { return static_cast<__mmask16>(n >= 16 ? 0xFFFFU : (1U << n) - 1U); }
  static F zero() { return _mm512_setzero_ps(); }
  static F set1(float x) { return _mm512_set1_ps(x); }
  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load_n(const float* p, std::int64_t n, float rest) { return _mm512_mask_loadu_ps(set1(rest), first(n), p); }
  static void store(float* p, F x) { _mm512_storeu_ps(p, x); }
  static void store_n(float* p, F x, std::int64_t n) { _mm512_mask_storeu_ps(p, first(n), x); }
  static F load_f16(const std::uint16_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static void store_f16(std::uint16_t* p, F x) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
  static F load_bf16(const std::uint16_t* p) {
    const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  /// Four neighbouring f16 each repeated four times, in kFours vectors.
  static constexpr int kFours = 1;
  static void repeat_f16(const std::uint16_t* p, F (&out)[kFours]) {
    const __m128 four = _mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const __m512i index = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    out[0] = _mm512_permutexvar_ps(index, _mm512_castps128_ps512(four));
  }
  /// Four floats, repeated to fill the vector.
  static F tile4(const float* p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
  static F round_f16(F x) { return _mm512_cvtph_ps(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F round(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// a where x > 0, else 0.
  static F where_positive(F x, F a) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_GT_OQ), a);
  }
  static F floor(F x) { return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
  /// table[index] for indices 0..15, and 0..31 of two tables.
  static F look_up(F table, I index) { return _mm512_permutexvar_ps(index, table); }
  static F look_up(F low, F high, I index) { return _mm512_permutex2var_ps(low, index, high); }
  static F gather(const float* table, I index) { return _mm512_i32gather_ps(index, table, 4); }
  /// Sixteen 8-bit floats; NaN reads as 480.
  static F load_e4m3(const std::uint8_t* p) {
    const I bits = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const I magnitude = _mm512_slli_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x7F)), 20);
    const I sign = _mm512_slli_epi32(_mm512_and_si512(bits, _mm512_set1_epi32(0x80)), 24);
    const F value = _mm512_mul_ps(_mm512_castsi512_ps(magnitude), set1(0x1p120F));
    return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(value), sign));
  }
  static F load_e5m2(const std::uint8_t* p) {
    const __m256i bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return _mm512_cvtph_ps(_mm256_slli_epi16(bytes, 8));
  }
  /// Sixteen codes of two bits from four bytes, lane k times 4^k; two_bits_factor takes that back.
  static constexpr int kPairVectors = 1;
  static void two_bits_in_place(const std::uint8_t* p, F (&out)[kPairVectors]) {
    std::int32_t word;
    __builtin_memcpy(&word, p, 4);
    const I mask = _mm512_sllv_epi32(set1_i(3), _mm512_slli_epi32(lane_numbers(), 1));
    out[0] = _mm512_cvtepu32_ps(_mm512_and_si512(set1_i(word), mask));
  }
  static F two_bits_factor() {
    return _mm512_setr_ps(1.0F, 0x1p-2F, 0x1p-4F, 0x1p-6F, 0x1p-8F, 0x1p-10F, 0x1p-12F, 0x1p-14F, 0x1p-16F, 0x1p-18F,
                          0x1p-20F, 0x1p-22F, 0x1p-24F, 0x1p-26F, 0x1p-28F, 0x1p-30F);
  }
  static I set1_i(int x) { return _mm512_set1_epi32(x); }
  static I lane_numbers() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
  static F power_of_two(F exponent) {
    const I biased = _mm512_add_epi32(_mm512_cvtps_epi32(exponent), _mm512_set1_epi32(127));
    return _mm512_castsi512_ps(_mm512_slli_epi32(biased, 23));
  }
  static float sum(F x) { return _mm512_reduce_add_ps(x); }
  static float smallest(F x) { return _mm512_reduce_min_ps(x); }
  static float largest(F x) { return _mm512_reduce_max_ps(x); }
  /// Sums of four vectors.
  static __m128 sum4(F a, F b, F c, F d) {
    const F ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const F cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const F all = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
    return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  }

  static I load_words(const void* p) { return _mm512_loadu_si512(p); }
  static I load_words_n(const void* p, std::int64_t n) { return _mm512_maskz_loadu_epi32(first(n), p); }
  static I zero_i() { return _mm512_setzero_si512(); }
  static I add_i(I a, I b) { return _mm512_add_epi32(a, b); }
  static int sum_i(I x) { return _mm512_reduce_add_epi32(x); }
  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
  static I to_int(F x) { return _mm512_cvtps_epi32(x); }
  /// The code in the lowest kWidth bits of every word, and the words without it.
  template <int kWidth>
  static F low_field(I words) {
    return _mm512_cvtepi32_ps(_mm512_and_si512(words, _mm512_set1_epi32((1 << kWidth) - 1)));
  }
  template <int kWidth>
  static I shift_down(I words) {
    return _mm512_srli_epi32(words, kWidth);
  }
  /// Sixteen neighbouring codes of a run of a packed row that starts at `run`; channel is a multiple of 16.
  template <int kWidth>
  static I codes(const std::uint8_t* run, std::int64_t channel) {
    const std::uint8_t* const p = run + channel * kWidth / 8;
    if constexpr (kWidth == 8) return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    const I lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    I words;
    I shift;
    if constexpr (kWidth == 4) {
      const I both = _mm512_castsi128_si512(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
      words = _mm512_permutexvar_epi32(_mm512_srli_epi32(lane, 3), both);
      shift = _mm512_slli_epi32(_mm512_and_si512(lane, _mm512_set1_epi32(7)), 2);
    } else if constexpr (kWidth == 2) {
      std::int32_t word;
      __builtin_memcpy(&word, p, 4);
      words = _mm512_set1_epi32(word);
      shift = _mm512_slli_epi32(lane, 1);
    } else {
      std::uint16_t word;
      __builtin_memcpy(&word, p, 2);
      words = _mm512_set1_epi32(word);
      shift = lane;
    }
    return _mm512_and_si512(_mm512_srlv_epi32(words, shift), _mm512_set1_epi32((1 << kWidth) - 1));
  }
  template <int kBits>
  static I shift_up(I words) {
    return _mm512_slli_epi32(words, kBits);
  }
  /// Codes of 3 bits: the low two of `low`, bit 2 of `high`.
  static F low_and_high(I low, I high) {
    const I two = _mm512_and_si512(low, _mm512_set1_epi32(3));
    return _mm512_cvtepi32_ps(_mm512_or_si512(two, _mm512_and_si512(high, _mm512_set1_epi32(4))));
  }
  static I merge_high_bit(I low, I high) { return _mm512_or_si512(low, _mm512_slli_epi32(high, 2)); }
  /// Codes 0..255 to bytes.
  static void store_bytes(std::uint8_t* p, I x, std::int64_t n) { _mm512_mask_cvtusepi32_storeu_epi8(p, first(n), x); }

  static F abs(F x) { return _mm512_abs_ps(x); }
  /// x where a < b, else y.
  static F where_less(F a, F b, F x, F y) { return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x); }

  /// Sixteen codes of a bit stream are kParts vectors. The bits above a code are those of later codes: tables are read
  /// by the low bits alone.
  static constexpr int kParts = 1;
  static std::int32_t word_at(const std::uint8_t* p) {
    std::int32_t word = 0;
    __builtin_memcpy(&word, p, 4);
    return word;
  }
  template <int kBits, int kPart>
  static I stream_codes(const std::uint8_t* sixteen) {
    static_assert(kPart == 0);
    const I words = _mm512_set1_epi32(word_at(sixteen));
    if constexpr (kBits == 2) {
      return _mm512_srlv_epi32(words, _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
    } else if constexpr (kBits == 5) {
      I four = _mm512_mask_set1_epi32(words, 0x00F0, word_at(sixteen + 1));
      four = _mm512_mask_set1_epi32(four, 0x0F00, word_at(sixteen + 5));
      four = _mm512_mask_set1_epi32(four, 0xF000, word_at(sixteen + 6));
      return _mm512_srlv_epi32(four, _mm512_setr_epi32(0, 5, 10, 15, 12, 17, 22, 27, 0, 5, 10, 15, 12, 17, 22, 27));
    } else {
      const I both = _mm512_mask_set1_epi32(words, 0xFF00, word_at(sixteen + 2 * kBits - 4));
      constexpr int kBit = kBits == 3 ? 8 : 0;
      return _mm512_srlv_epi32(
          both, _mm512_setr_epi32(0, kBits, 2 * kBits, 3 * kBits, 4 * kBits, 5 * kBits, 6 * kBits, 7 * kBits, kBit,
                                  kBit + kBits, kBit + 2 * kBits, kBit + 3 * kBits, kBit + 4 * kBits, kBit + 5 * kBits,
                                  kBit + 6 * kBits, kBit + 7 * kBits));
    }
  }
  /// 2^kBits floats, repeated to fill whole vectors, and one of them a lane.
  template <int kBits>
  struct Table {
    F entries[kBits == 5 ? 2 : 1];
  };
  template <int kBits>
  static Table<kBits> load_table(const float* table) {
    Table<kBits> loaded;
    int vector = 0;
    for (F& entries : loaded.entries) entries = load(table + kLanes * vector++);
    return loaded;
  }
  template <int kBits>
  static F lookup(const Table<kBits>& table, I codes) {
    if constexpr (kBits == 5) {
      return _mm512_permutex2var_ps(table.entries[0], codes, table.entries[1]);
    } else {
      return _mm512_permutexvar_ps(codes, table.entries[0]);
    }
  }

  /// kDotBytes products u8 * s8, added to int32 lanes.
  static constexpr std::int64_t kDotBytes = 32;
  static I dot_bytes(I sums, const std::uint8_t* a, const std::int8_t* w) {
    const I wide_a = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
    const I wide_w = _mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)));
    return _mm512_add_epi32(sums, _mm512_madd_epi16(wide_a, wide_w));
  }
};

}  // namespace
}  // namespace qs::kernels
