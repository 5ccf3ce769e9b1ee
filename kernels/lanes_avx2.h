#pragma once

// Eight lanes for the *_lanes.inc kernels. Everything has internal linkage: only files compiled for AVX2 include this.

#include <immintrin.h>

#include <cstdint>

namespace qs::kernels {
namespace {

struct V {
  using F = __m256;
  using I = __m256i;
  static constexpr std::int64_t kLanes = 8;

  static I first(std::int64_t n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(n)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static F zero() { return _mm256_setzero_ps(); }
  static F set1(float x) { return _mm256_set1_ps(x); }
  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load_n(const float* p, std::int64_t n, float rest) {
    const I mask = first(n);
    return _mm256_blendv_ps(set1(rest), _mm256_maskload_ps(p, mask), _mm256_castsi256_ps(mask));
  }
  static void store(float* p, F x) { _mm256_storeu_ps(p, x); }
  static void store_n(float* p, F x, std::int64_t n) { _mm256_maskstore_ps(p, first(n), x); }
  static F load_f16(const std::uint16_t* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static void store_f16(std::uint16_t* p, F x) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
  }
  static F load_bf16(const std::uint16_t* p) {
    const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
  }
  /// Four neighbouring f16 each repeated four times, in kFours vectors.
  static constexpr int kFours = 2;
  static void repeat_f16(const std::uint16_t* p, F (&out)[kFours]) {
    const __m256 four = _mm256_castps128_ps256(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
    out[0] = _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1));
    out[1] = _mm256_permutevar8x32_ps(four, _mm256_setr_epi32(2, 2, 2, 2, 3, 3, 3, 3));
  }
  /// Four floats, repeated to fill the vector.
  static F tile4(const float* p) { return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(p)); }
  static F round_f16(F x) { return _mm256_cvtph_ps(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT)); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F round(F x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
  /// a where x > 0, else 0.
  static F where_positive(F x, F a) { return _mm256_and_ps(_mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_GT_OQ), a); }
  static F floor(F x) { return _mm256_floor_ps(x); }
  /// table[index] for indices 0..7, and 0..15 of two tables.
  static F look_up(F table, I index) { return _mm256_permutevar8x32_ps(table, index); }
  static F look_up(F low, F high, I index) {
    return _mm256_blendv_ps(look_up(low, index), look_up(high, index),
                            _mm256_castsi256_ps(_mm256_slli_epi32(index, 28)));
  }
  static F gather(const float* table, I index) { return _mm256_i32gather_ps(table, index, 4); }
  /// Eight 8-bit floats; NaN reads as 480.
  static F load_e4m3(const std::uint8_t* p) {
    const I bits = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const I magnitude = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x7F)), 20);
    const I sign = _mm256_slli_epi32(_mm256_and_si256(bits, _mm256_set1_epi32(0x80)), 24);
    const F value = _mm256_mul_ps(_mm256_castsi256_ps(magnitude), set1(0x1p120F));
    return _mm256_or_ps(value, _mm256_castsi256_ps(sign));
  }
  static F load_e5m2(const std::uint8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), bytes));
  }
  /// Sixteen codes of two bits from four bytes, lane k of each vector times 4^k; two_bits_factor takes that back.
  static constexpr int kPairVectors = 2;
  static void two_bits_in_place(const std::uint8_t* p, F (&out)[kPairVectors]) {
    std::int32_t word;
    __builtin_memcpy(&word, p, 4);
    const I mask = _mm256_setr_epi32(3, 3 << 2, 3 << 4, 3 << 6, 3 << 8, 3 << 10, 3 << 12, 3 << 14);
    const I words = _mm256_set1_epi32(word);
    out[0] = _mm256_cvtepi32_ps(_mm256_and_si256(words, mask));
    out[1] = _mm256_cvtepi32_ps(_mm256_and_si256(_mm256_srli_epi32(words, 16), mask));
  }
  static F two_bits_factor() {
    return _mm256_setr_ps(1.0F, 0x1p-2F, 0x1p-4F, 0x1p-6F, 0x1p-8F, 0x1p-10F, 0x1p-12F, 0x1p-14F);
  }
  static F power_of_two(F exponent) {
    const I biased = _mm256_add_epi32(_mm256_cvtps_epi32(exponent), _mm256_set1_epi32(127));
    return _mm256_castsi256_ps(_mm256_slli_epi32(biased, 23));
  }
  static float sum(F x) {
    const __m128 quad = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 pair = _mm_add_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_movehdup_ps(pair)));
  }
  static float smallest(F x) {
    const __m128 quad = _mm_min_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 pair = _mm_min_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_min_ss(pair, _mm_movehdup_ps(pair)));
  }
  static float largest(F x) {
    const __m128 quad = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 pair = _mm_max_ps(quad, _mm_movehl_ps(quad, quad));
    return _mm_cvtss_f32(_mm_max_ss(pair, _mm_movehdup_ps(pair)));
  }
  /// Sums of four vectors.
  static __m128 sum4(F a, F b, F c, F d) {
    const F all = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  }

  static I load_words(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
  static I load_words_n(const void* p, std::int64_t n) {
    return _mm256_maskload_epi32(static_cast<const int*>(p), first(n));
  }
  static I zero_i() { return _mm256_setzero_si256(); }
  static I add_i(I a, I b) { return _mm256_add_epi32(a, b); }
  static int sum_i(I x) {
    const __m128i quad = _mm_add_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    const __m128i pair = _mm_add_epi32(quad, _mm_shuffle_epi32(quad, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(pair, _mm_shuffle_epi32(pair, 0xB1)));
  }
  static F to_float(I x) { return _mm256_cvtepi32_ps(x); }
  static I to_int(F x) { return _mm256_cvtps_epi32(x); }
  /// The code in the lowest kWidth bits of every word, and the words without it.
  template <int kWidth>
  static F low_field(I words) {
    return _mm256_cvtepi32_ps(_mm256_and_si256(words, _mm256_set1_epi32((1 << kWidth) - 1)));
  }
  template <int kWidth>
  static I shift_down(I words) {
    return _mm256_srli_epi32(words, kWidth);
  }
  /// Eight neighbouring codes of a run of a packed row that starts at `run`; channel is a multiple of 8.
  template <int kWidth>
  static I codes(const std::uint8_t* run, std::int64_t channel) {
    const std::uint8_t* const p = run + channel * kWidth / 8;
    if constexpr (kWidth == 8) return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const I lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    std::uint32_t word = 0;
    __builtin_memcpy(&word, p, kWidth);
    const I shift = _mm256_mullo_epi32(lane, _mm256_set1_epi32(kWidth));
    const I shifted = _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word)), shift);
    return _mm256_and_si256(shifted, _mm256_set1_epi32((1 << kWidth) - 1));
  }
  template <int kBits>
  static I shift_up(I words) {
    return _mm256_slli_epi32(words, kBits);
  }
  /// Codes of 3 bits: the low two of `low`, bit 2 of `high`.
  static F low_and_high(I low, I high) {
    const I two = _mm256_and_si256(low, _mm256_set1_epi32(3));
    return _mm256_cvtepi32_ps(_mm256_or_si256(two, _mm256_and_si256(high, _mm256_set1_epi32(4))));
  }
  static I merge_high_bit(I low, I high) { return _mm256_or_si256(low, _mm256_slli_epi32(high, 2)); }
  /// Codes 0..255 to bytes.
  static void store_bytes(std::uint8_t* p, I x, std::int64_t n) {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1));
    const std::int64_t bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words));
    __builtin_memcpy(p, &bytes, static_cast<std::size_t>(n < 8 ? n : 8));
  }

  static F abs(F x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), x); }
  /// x where a < b, else y.
  static F where_less(F a, F b, F x, F y) { return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ)); }

  /// Sixteen codes of a bit stream are kParts vectors. The bits above a code are those of later codes: tables are read
  /// by the low bits alone.
  static constexpr int kParts = 2;
  static I broadcast_word(const std::uint8_t* p) {
    std::int32_t word = 0;
    __builtin_memcpy(&word, p, 4);
    return _mm256_set1_epi32(word);
  }
  template <int kBits, int kPart>
  static I stream_codes(const std::uint8_t* sixteen) {
    if constexpr (kBits == 5) {
      const std::uint8_t* const p = sixteen + 5 * kPart;
      const I words = _mm256_blend_epi32(broadcast_word(p), broadcast_word(p + 1), 0xF0);
      return _mm256_srlv_epi32(words, _mm256_setr_epi32(0, 5, 10, 15, 12, 17, 22, 27));
    } else {
      // The second word ends where the sixteen codes end.
      constexpr int kByte = kPart == 0 ? 0 : 2 * kBits - 4;
      constexpr int kBit = 8 * kBits * kPart - 8 * kByte;
      const I shift = _mm256_setr_epi32(kBit, kBit + kBits, kBit + 2 * kBits, kBit + 3 * kBits, kBit + 4 * kBits,
                                        kBit + 5 * kBits, kBit + 6 * kBits, kBit + 7 * kBits);
      return _mm256_srlv_epi32(broadcast_word(sixteen + kByte), shift);
    }
  }
  /// 2^kBits floats, repeated to fill whole vectors, and one of them a lane.
  template <int kBits>
  struct Table {
    F entries[kBits <= 3 ? 1 : 1 << (kBits - 3)];
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
    const F low = _mm256_permutevar8x32_ps(table.entries[0], codes);
    if constexpr (kBits <= 3) {
      return low;
    } else {
      const F bit3 = _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28));
      const F lower = _mm256_blendv_ps(low, _mm256_permutevar8x32_ps(table.entries[1], codes), bit3);
      if constexpr (kBits == 4) {
        return lower;
      } else {
        const F upper = _mm256_blendv_ps(_mm256_permutevar8x32_ps(table.entries[2], codes),
                                         _mm256_permutevar8x32_ps(table.entries[3], codes), bit3);
        return _mm256_blendv_ps(lower, upper, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 27)));
      }
    }
  }

  /// kDotBytes products u8 * s8, added to int32 lanes.
  static constexpr std::int64_t kDotBytes = 16;
  static I dot_bytes(I sums, const std::uint8_t* a, const std::int8_t* w) {
    const I wide_a = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a)));
    const I wide_w = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w)));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(wide_a, wide_w));
  }
};

}  // namespace
}  // namespace qs::kernels
