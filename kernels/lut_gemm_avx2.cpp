#include "kernels/instruction_sets.h"
#include "kernels/lanes_avx2.h"
#include "kernels/lut_gemm.h"
#include "kernels/lut_gemm_lanes.inc"

namespace qs::kernels {
namespace {

constexpr int kByteRows = 32;  ///< rows of one register of bytes

/// One token's tables of a strip in integers: entry p of table n is the sum of columns 4n to 4n + 3 over `scale`, its
/// low byte (the only one of 8-bit entries) and its high byte apart, because a shuffle looks up bytes.
struct IntegerStrip {
  alignas(16) std::int8_t low[kLutStrip / 4][16];
  alignas(16) std::int8_t high[kLutStrip / 4][16];
  float scale, sum;
};

template <bool kWide>
void build_integers(const float* x, std::int64_t count, IntegerStrip& strip) {
  constexpr float kMost = kWide ? 32767.0F : 127.0F;
  alignas(16) float inputs[kLutStrip] = {};
  strip.sum = 0.0F;
  for (std::int64_t i = 0; i < count; ++i) {
    inputs[i] = x[i];
    strip.sum += x[i];
  }
  float top = 0.0F;
  for (std::int64_t run = 0; 4 * run < count; ++run) {
    float size = 0.0F;
    for (int k = 0; k < 4; ++k) size += __builtin_fabsf(inputs[4 * run + k]);
    top = size > top ? size : top;
  }
  const __m128 inverse = _mm_set1_ps(top > 0.0F ? kMost / top : 0.0F);
  strip.scale = top / kMost;
  for (std::int64_t run = 0; 4 * run < kLutStrip; ++run) {
    float sums[16];
    const float* const in = inputs + 4 * run;
    sums[0] = 0.0F;
    for (int k = 0; k < 4; ++k) sums[0] -= in[k];
    for (int k = 0; k < 4; ++k)
      for (int p = 0; p < 1 << k; ++p) sums[p + (1 << k)] = sums[p] + 2.0F * in[k];
    __m128i entries[4];
    for (int j = 0; j < 4; ++j) entries[j] = _mm_cvtps_epi32(_mm_mul_ps(_mm_loadu_ps(sums + 4 * j), inverse));
    const __m128i first = _mm_packs_epi32(entries[0], entries[1]);
    const __m128i second = _mm_packs_epi32(entries[2], entries[3]);
    auto* const low = reinterpret_cast<__m128i*>(strip.low[run]);
    if constexpr (kWide) {
      const __m128i byte = _mm_set1_epi16(255);
      _mm_store_si128(low, _mm_packus_epi16(_mm_and_si128(first, byte), _mm_and_si128(second, byte)));
      _mm_store_si128(reinterpret_cast<__m128i*>(strip.high[run]),
                      _mm_packs_epi16(_mm_srai_epi16(first, 8), _mm_srai_epi16(second, 8)));
    } else {
      _mm_store_si128(low, _mm_packs_epi16(first, second));
    }
  }
}

/// Byte k of 32 neighbouring words to register k; the rows of a 16-byte lane are 0-3, 8-11, 16-19, 24-27 and 4 more.
void bytes_of_words(const std::uint32_t* words, __m256i (&bytes)[4]) {
  const __m256i by_byte = _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8, 12, 1, 5, 9,
                                           13, 2, 6, 10, 14, 3, 7, 11, 15);
  __m256i in[4];
  for (int j = 0; j < 4; ++j) in[j] = _mm256_shuffle_epi8(V::load_words(words + 8 * j), by_byte);
  const __m256i low01 = _mm256_unpacklo_epi32(in[0], in[1]);
  const __m256i high01 = _mm256_unpackhi_epi32(in[0], in[1]);
  const __m256i low23 = _mm256_unpacklo_epi32(in[2], in[3]);
  const __m256i high23 = _mm256_unpackhi_epi32(in[2], in[3]);
  bytes[0] = _mm256_unpacklo_epi64(low01, low23);
  bytes[1] = _mm256_unpackhi_epi64(low01, low23);
  bytes[2] = _mm256_unpacklo_epi64(high01, high23);
  bytes[3] = _mm256_unpackhi_epi64(high01, high23);
}

__m256i byte_table(const std::int8_t* table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

/// Sums of bytes of 32 rows, 16 bits each: [0] has rows 0-3, 8-11 and 4-7, 12-15, [1] the same 16 further.
struct RowSums {
  __m256i low[2], high[2];
};

/// Adds the entries that two tables hold for 32 rows, in pairs. Low bytes of 16-bit entries are unsigned.
template <bool kUnsigned>
void add_pairs(const std::int8_t* first_table, const std::int8_t* second_table, __m256i first_index,
               __m256i second_index, __m256i (&sums)[2]) {
  const __m256i ones = _mm256_set1_epi8(1);
  const __m256i first = _mm256_shuffle_epi8(byte_table(first_table), first_index);
  const __m256i second = _mm256_shuffle_epi8(byte_table(second_table), second_index);
  const __m256i pairs[2] = {_mm256_unpacklo_epi8(first, second), _mm256_unpackhi_epi8(first, second)};
  for (int i = 0; i < 2; ++i)
    sums[i] = _mm256_add_epi16(sums[i],
                               kUnsigned ? _mm256_maddubs_epi16(pairs[i], ones) : _mm256_maddubs_epi16(ones, pairs[i]));
}

template <bool kWide>
void add_word(const std::uint32_t* words, const IntegerStrip& strip, std::int64_t table, RowSums& sums) {
  const __m256i nibble = _mm256_set1_epi8(15);
  __m256i bytes[4];
  bytes_of_words(words, bytes);
  for (int k = 0; k < 4; ++k, table += 2) {
    const __m256i first = _mm256_and_si256(bytes[k], nibble);
    const __m256i second = _mm256_and_si256(_mm256_srli_epi16(bytes[k], 4), nibble);
    add_pairs<kWide>(strip.low[table], strip.low[table + 1], first, second, sums.low);
    if constexpr (kWide) add_pairs<false>(strip.high[table], strip.high[table + 1], first, second, sums.high);
  }
}

/// The j-th eight rows.
__m256i eight_sums(const __m256i (&sums)[2], std::int64_t j) {
  const __m256i in_order = _mm256_permute4x64_epi64(sums[j / 2], 0xD8);
  return _mm256_cvtepi16_epi32(j % 2 == 0 ? _mm256_castsi256_si128(in_order) : _mm256_extracti128_si256(in_order, 1));
}

/// Rows [row, row + 32) of one plane; `rows` of them are wanted.
template <bool kWide>
void add_byte_rows(const BitPlaneWeight& weight, std::int64_t first_word, std::int64_t words, std::int64_t group,
                   int plane, std::int64_t row, std::int64_t rows, const IntegerStrip& strip, float* y) {
  const std::int64_t outs = weight.out_features;
  const std::int64_t stride = weight.bits * outs;
  const std::uint32_t* const planes = weight.planes + first_word * stride + plane * outs + row;
  const __m256i zero = _mm256_setzero_si256();
  RowSums sums = {{zero, zero}, {zero, zero}};
  for (std::int64_t at = 0; at < words; ++at) {
    if (rows >= kByteRows) {
      add_word<kWide>(planes + at * stride, strip, 8 * at, sums);
    } else {
      std::uint32_t few[kByteRows] = {};
      __builtin_memcpy(few, planes + at * stride, 4 * static_cast<std::size_t>(rows));
      add_word<kWide>(few, strip, 8 * at, sums);
    }
  }
  const V::F scale = V::set1(strip.scale);
  for (std::int64_t j = 0; 8 * j < rows && j < 4; ++j) {
    __m256i total = eight_sums(sums.low, j);
    if constexpr (kWide) total = _mm256_add_epi32(total, _mm256_slli_epi32(eight_sums(sums.high, j), 8));
    const std::int64_t lanes = rows - 8 * j;
    const V::F alpha =
        lut_scales(weight.scale_type, weight.alpha, (group * weight.bits + plane) * outs + row + 8 * j, lanes);
    float* const out = y + row + 8 * j;
    const V::F sum = V::mul(V::to_float(total), scale);
    if (lanes >= V::kLanes)
      V::store(out, V::fma(alpha, sum, V::load(out)));
    else
      V::store_n(out, V::fma(alpha, sum, V::load_n(out, lanes, 0.0F)), lanes);
  }
}

template <bool kWide>
void lut_gemm_integer(const BitPlaneWeight& weight, const GemvArgs& args) {
  for (std::int64_t t = 0; t < args.tokens; ++t) {
    float* const y = args.y + t * weight.out_features;
    for (std::int64_t row = args.row_begin; row < args.row_end; ++row) y[row] = 0.0F;
    for (std::int64_t column = 0; column < weight.in_features;) {
      const std::int64_t group = column / weight.group_size;
      const std::int64_t left = (group + 1) * weight.group_size - column;
      const std::int64_t count = left < kLutStrip ? left : kLutStrip;
      IntegerStrip strip;
      build_integers<kWide>(args.x + t * weight.in_features + column, count, strip);
      for (int plane = 0; plane < weight.bits; ++plane)
        for (std::int64_t row = args.row_begin; row < args.row_end; row += kByteRows)
          add_byte_rows<kWide>(weight, column / 32, (count + 31) / 32, group, plane, row, args.row_end - row, strip, y);
      if (weight.offset != nullptr) {
        LutStrip sum_only;
        sum_only.sum = strip.sum;
        add_offset<1>(weight, args, group, &sum_only, y);
      }
      column += count;
    }
  }
}

}  // namespace

void lut_gemm_avx2(const BitPlaneWeight& weight, const GemvArgs& args, LutArithmetic arithmetic) noexcept {
  if (!lanes_fit_planes(weight)) return lut_gemm_scalar(weight, args, arithmetic);
  if (arithmetic == LutArithmetic::Int8) return lut_gemm_integer<false>(weight, args);
  if (arithmetic == LutArithmetic::Int16) return lut_gemm_integer<true>(weight, args);
  lut_gemm_f32(weight, args);
}

}  // namespace qs::kernels
