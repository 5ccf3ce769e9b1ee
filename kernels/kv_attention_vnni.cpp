#include "kernels/instruction_sets.h"
#include "kernels/kv_attention.h"
#include "kernels/lanes_avx512.h"
#include "kernels/lanes_common.h"

// Arithmetic::Fixed16: codes and folded factors as pairs of int16, two products and their sum a lane and instruction.

#include "kernels/kv_attention_rows.inc"

namespace qs::kernels {
namespace {

constexpr float kLargest = 32767.0F;

/// sums += codes * factor, pairs of int16. Written out because g++ 12 copies the accumulator around the intrinsic.
void multiply_add(__m512i& sums, __m512i codes, __m512i factor) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sums) : "v"(codes), "v"(factor));
}
void multiply_add(__m512i& sums, __m512i codes, const std::int32_t* factor) {
  asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sums) : "v"(codes), "m"(*factor));
}

// ---- keys ----

/// int32 lanes p = (x[low[p]], x[high[p]]) as int16 pairs.
__m512i pair_up(__m512i low, __m512i high) {
  return _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi32(0xFFFF)), _mm512_slli_epi32(high, 16));
}

/// The field pairs of a word: field f goes with field f + fields / 2, both of one shift and mask.
/// pairs[unit * fields / 2 + f] for all units of a head. `folded` has [head_dim] values.
template <int kWidth>
void pair_query(const float* folded, std::int64_t head_dim, float factor, std::int32_t* pairs) {
  const __m512 scale = _mm512_set1_ps(factor);
  if constexpr (kWidth == 1) {
    for (std::int64_t d = 0; d < head_dim; d += 32) {
      const __m512i low = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(folded + d), scale));
      const __m512i high = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(folded + d + 16), scale));
      _mm512_storeu_si512(pairs + d / 2, pair_up(low, high));
    }
  } else {
    constexpr int kHalf = 16 / kWidth;
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i within = _mm512_and_si512(lane, _mm512_set1_epi32(kHalf - 1));
    const __m512i low_index = _mm512_add_epi32(_mm512_slli_epi32(_mm512_sub_epi32(lane, within), 1), within);
    const __m512i high_index = _mm512_add_epi32(low_index, _mm512_set1_epi32(kHalf));
    for (std::int64_t d = 0; d < head_dim; d += 16) {
      const __m512i all = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(folded + d), scale));
      const __m512i pair = pair_up(_mm512_permutexvar_epi32(low_index, all), _mm512_permutexvar_epi32(high_index, all));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(pairs + d / 2), _mm512_castsi512_si256(pair));
    }
  }
}

template <int kWidth, int kQueries, int kVectors>
void sum_pairs(const std::uint8_t* words, std::int64_t rows, std::int64_t units, std::int64_t last,
               const std::int32_t* pairs, __m512i (&totals)[kQueries][kVectors]) {
  constexpr int kHalf = 16 / kWidth;
  __m512i sums[kQueries][kVectors];
  for (int i = 0; i < kQueries; ++i)
    for (int v = 0; v < kVectors; ++v) sums[i][v] = _mm512_setzero_si512();
  const __m512i mask = _mm512_set1_epi32(((1 << kWidth) - 1) * 0x10001);
  for (std::int64_t unit = 0; unit < units; ++unit) {
    __m512i packed[kVectors];
    for (int v = 0; v + 1 < kVectors; ++v) packed[v] = _mm512_loadu_si512(words + 4 * (unit * rows + v * 16));
    packed[kVectors - 1] = V::load_words_n(words + 4 * (unit * rows + (kVectors - 1) * 16), last);
    const std::int32_t* const q = pairs + unit * kHalf;
#pragma GCC unroll 16
    for (int f = 0; f < kHalf; ++f) {
      __m512i codes[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        codes[v] = _mm512_and_si512(packed[v], mask);
        packed[v] = _mm512_srli_epi32(packed[v], kWidth);
      }
      for (int i = 0; i < kQueries; ++i) {
        const __m512i factor = _mm512_set1_epi32(q[i * kMaxHeadDim / 2 + f]);
        for (int v = 0; v < kVectors; ++v) multiply_add(sums[i][v], codes[v], factor);
      }
    }
  }
  for (int i = 0; i < kQueries; ++i)
    for (int v = 0; v < kVectors; ++v) totals[i][v] = sums[i][v];
}

struct FoldedQuery {
  alignas(64) std::int32_t pairs[kTileQueries * kMaxHeadDim / 2];
  alignas(64) std::int32_t high_pairs[kTileQueries * kMaxHeadDim / 2];
  float step[kTileQueries];
  float constant[kTileQueries];
};

template <int kBits, int kQueries, int kVectors>
void score_tokens(const TileArgs& tile, std::int64_t t, const FoldedQuery& folded, float* scores) {
  constexpr int kWidth = kBits == 3 ? 2 : kBits;
  const Segment& segment = *tile.segment;
  const std::int64_t rows = segment.group_size;
  const std::uint8_t* const run = line_of(segment, tile.begin / rows);
  const std::int64_t first = (tile.begin + t) % rows;
  const std::int64_t last = tile.count - t - (kVectors - 1) * 16;
  __m512i sums[kQueries][kVectors];
  sum_pairs<kWidth, kQueries, kVectors>(run + 4 * first, rows, tile.head_dim * kWidth / 32, last, folded.pairs, sums);
  if constexpr (kBits == 3) {
    __m512i high[kQueries][kVectors];
    sum_pairs<1, kQueries, kVectors>(run + rows * tile.head_dim / 4 + 4 * first, rows, tile.head_dim / 32, last,
                                     folded.high_pairs, high);
    for (int i = 0; i < kQueries; ++i)
      for (int v = 0; v < kVectors; ++v) sums[i][v] = _mm512_add_epi32(sums[i][v], _mm512_slli_epi32(high[i][v], 2));
  }
  for (int i = 0; i < kQueries; ++i)
    for (int v = 0; v < kVectors; ++v) {
      const __m512 score =
          _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i][v]), V::set1(folded.step[i]), V::set1(folded.constant[i]));
      V::store_n(scores + i * kTileTokens + t + v * 16, score, tile.count - t - v * 16);
    }
}

template <int kBits, int kQueries>
void scores_per_channel(const TileArgs& tile, const float* query, float* scores) {
  const Segment& segment = *tile.segment;
  const std::int64_t line = tile.begin / segment.group_size * segment.scale_stride;
  alignas(64) float products[kQueries][kMaxHeadDim];
  FoldedQuery folded;
  V::F constants[kQueries];
  V::F largest[kQueries];
  for (int i = 0; i < kQueries; ++i) constants[i] = largest[i] = V::zero();
  for (std::int64_t d = 0; d < tile.head_dim; d += 16) {
    const V::F scales = V::load_f16(segment.scale + line + d);
    const V::F lows = V::load_f16(segment.group_min + line + d);
    for (int i = 0; i < kQueries; ++i) {
      const V::F q = V::load(query + i * tile.head_dim + d);
      const V::F product = V::mul(q, scales);
      V::store(products[i] + d, product);
      constants[i] = V::fma(q, lows, constants[i]);
      largest[i] = V::max(largest[i], _mm512_abs_ps(product));
    }
  }
  for (int i = 0; i < kQueries; ++i) {
    const float most = V::largest(largest[i]);
    const float factor = most > 1e-30F ? kLargest / most : 0.0F;
    folded.step[i] = most / kLargest;
    folded.constant[i] = V::sum(constants[i]);
    pair_query<kBits == 3 ? 2 : kBits>(products[i], tile.head_dim, factor, folded.pairs + i * kMaxHeadDim / 2);
    if constexpr (kBits == 3)
      pair_query<1>(products[i], tile.head_dim, factor, folded.high_pairs + i * kMaxHeadDim / 2);
  }
  std::int64_t t = 0;
  for (; t + 16 < tile.count; t += 32) score_tokens<kBits, kQueries, 2>(tile, t, folded, scores);
  if (t < tile.count) score_tokens<kBits, kQueries, 1>(tile, t, folded, scores);
}

// ---- values ----

/// Codes of 16 channels of two tokens as int16 pairs (first, second).
template <int kBits>
__m512i pair_codes(const std::uint8_t* first, const std::uint8_t* second, std::int64_t head_dim, std::int64_t channel) {
  if constexpr (kBits == 2) {
    const __m512i lane = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i shift = _mm512_slli_epi32(lane, 1);
    std::int32_t a = 0;
    std::int32_t b = 0;
    __builtin_memcpy(&a, first + channel / 4, 4);
    __builtin_memcpy(&b, second + channel / 4, 4);
    const __m512i low = _mm512_srlv_epi32(_mm512_set1_epi32(a), shift);
    const __m512i turned = _mm512_rolv_epi32(_mm512_set1_epi32(b), _mm512_sub_epi32(_mm512_set1_epi32(16), shift));
    const __m512i high = _mm512_and_si512(turned, _mm512_set1_epi32(0x30000));
    return _mm512_ternarylogic_epi32(low, _mm512_set1_epi32(3), high, 0xEA);
  } else {
    const __m512i low = row_codes<kBits>(first, head_dim, channel);
    return _mm512_or_si512(low, _mm512_slli_epi32(row_codes<kBits>(second, head_dim, channel), 16));
  }
}

/// weights[(pair * groups + j) * 4 + i]: int16 pairs of a strip's folded weights in steps of step[i].
struct PairedWeights {
  std::int64_t groups = 0;
  const std::int32_t* weights = nullptr;
  const float* step = nullptr;
  const float* bases = nullptr;
};

template <int kBits, int kQueries, int kChunks>
void add_value_chunk(const TileArgs& tile, std::int64_t begin, std::int64_t count, const PairedWeights& folded,
                     std::int64_t channel, float* out) {
  const Segment& segment = *tile.segment;
  __m512i sums[kQueries][kChunks];
  std::int64_t group[kChunks];
  for (int c = 0; c < kChunks; ++c) {
    group[c] = (segment.channel_offset + channel + c * 16) / segment.group_size * 4;
    for (int i = 0; i < kQueries; ++i) sums[i][c] = _mm512_setzero_si512();
  }
  for (std::int64_t t = 0; t < count; t += 2) {
    const std::uint8_t* const first = line_of(segment, tile.begin + begin + t);
    const std::uint8_t* const second = t + 1 < count ? first + segment.stride : first;
    const std::int32_t* const pairs = folded.weights + t / 2 * folded.groups * 4;
    for (int c = 0; c < kChunks; ++c) {
      const __m512i codes = pair_codes<kBits>(first, second, tile.head_dim, channel + c * 16);
      for (int i = 0; i < kQueries; ++i) multiply_add(sums[i][c], codes, pairs + group[c] + i);
    }
  }
  for (int i = 0; i < kQueries; ++i)
    for (int c = 0; c < kChunks; ++c) {
      float* const at = out + i * tile.head_dim + channel + c * 16;
      const V::F base = V::add(V::load(at), V::set1(folded.bases[group[c] + i]));
      V::store(at, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[i][c]), V::set1(folded.step[i]), base));
    }
}

template <int kBits, int kQueries>
void values_per_token(const TileArgs& tile, const float* weights, float* out) {
  alignas(64) float steps[kStripGroups * 4];
  alignas(64) float bases[kMaxGroups * 4];
  alignas(64) std::int32_t pairs[kStripGroups * 2];
  alignas(16) float step[4];
  alignas(16) float factor[4];
  FoldedWeights folded;
  folded.steps = steps;
  folded.bases = bases;
  const std::int64_t strip = strip_tokens(tile);
  for (std::int64_t begin = 0; begin < tile.count; begin += strip) {
    const std::int64_t count = tile.count - begin < strip ? tile.count - begin : strip;
    fold_weights<kQueries>(tile, begin, count, weights, folded);
    const std::int64_t stride = folded.groups * 4;
    V::F most = V::set1(1e-30F);
    for (std::int64_t k = 0; k < count * stride; k += 16) most = V::max(most, V::load(steps + k));
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(most), _mm512_extractf32x8_ps(most, 1));
    const __m128 largest = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    _mm_store_ps(step, _mm_div_ps(largest, _mm_set1_ps(kLargest)));
    _mm_store_ps(factor, _mm_div_ps(_mm_set1_ps(kLargest), largest));
    const V::F factors = V::tile4(factor);
    for (std::int64_t t = 0; t < count; t += 2)
      for (std::int64_t k = 0; k < stride; k += 16) {
        const float* const at = steps + t * stride + k;
        const __m512i low = V::to_int(V::mul(V::load(at), factors));
        __m512i high = _mm512_setzero_si512();
        if (t + 1 < count) high = V::to_int(V::mul(V::load(at + stride), factors));
        _mm512_storeu_si512(pairs + t / 2 * stride + k, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
      }
    const PairedWeights paired{folded.groups, pairs, step, bases};
    std::int64_t d = 0;
    for (; d + 64 <= tile.head_dim; d += 64) add_value_chunk<kBits, kQueries, 4>(tile, begin, count, paired, d, out);
    for (; d < tile.head_dim; d += 16) add_value_chunk<kBits, kQueries, 1>(tile, begin, count, paired, d, out);
  }
}

template <int kQueries>
void key_scores(const TileArgs& tile, const float* query, float* scores) {
  const int bits = tile.segment->bits;
  if (bits == 2) return scores_per_channel<2, kQueries>(tile, query, scores);
  if (bits == 3) return scores_per_channel<3, kQueries>(tile, query, scores);
  if (bits == 4) return scores_per_channel<4, kQueries>(tile, query, scores);
  scores_per_channel<8, kQueries>(tile, query, scores);
}

template <int kQueries>
void value_sums(const TileArgs& tile, const float* weights, float* out) {
  const int bits = tile.segment->bits;
  if (bits == 2) return values_per_token<2, kQueries>(tile, weights, out);
  if (bits == 3) return values_per_token<3, kQueries>(tile, weights, out);
  if (bits == 4) return values_per_token<4, kQueries>(tile, weights, out);
  values_per_token<8, kQueries>(tile, weights, out);
}

}  // namespace

void key_scores_vnni(const TileArgs& tile, const float* query, float* scores) noexcept {
  // 8 bits: 255 * 32767 * head_dim must stay below 2^31.
  const bool sums_fit = tile.segment->bits != 8 || tile.head_dim <= 256;
  if (tile.arithmetic != Arithmetic::Fixed16 || tile.segment->storage != Storage::PerChannel ||
      !lanes_fit_block(tile) || !sums_fit)
    return key_scores_avx512(tile, query, scores);
  if (tile.queries == 1) return key_scores<1>(tile, query, scores);
  if (tile.queries == 2) return key_scores<2>(tile, query, scores);
  if (tile.queries == 3) return key_scores<3>(tile, query, scores);
  key_scores<4>(tile, query, scores);
}

void value_sums_vnni(const TileArgs& tile, const float* weights, float* out) noexcept {
  if (tile.arithmetic != Arithmetic::Fixed16 || tile.segment->storage != Storage::PerToken || !lanes_fit_rows(tile))
    return value_sums_avx512(tile, weights, out);
  if (tile.queries == 1) return value_sums<1>(tile, weights, out);
  if (tile.queries == 2) return value_sums<2>(tile, weights, out);
  if (tile.queries == 3) return value_sums<3>(tile, weights, out);
  value_sums<4>(tile, weights, out);
}

}  // namespace qs::kernels
