#include <QtTest>
#include <chrono>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "kernels/copy_bandwidth.h"
#include "tests/support/bit_planes.h"
#include "tests/support/kv_segments.h"

using namespace kernel_fixture;

namespace {

/// Best time of a few runs, in milliseconds.
template <typename Work>
double best_ms(Work work) {
  double best = 1e300;
  const auto start = std::chrono::steady_clock::now();
  for (int run = 0; run < 30; ++run) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const auto end = std::chrono::steady_clock::now();
    best = std::min(best, std::chrono::duration<double, std::milli>(end - begin).count());
    if (run > 4 && end - start > std::chrono::seconds(2)) break;
  }
  return best;
}

struct Layer {
  std::vector<Stored> keys, values;  ///< one a KV head
  double megabytes = 0;
};

constexpr std::int64_t kHeads = 8;
constexpr std::int64_t kQueriesPerHead = 4;
constexpr std::int64_t kDim = 128;
constexpr std::int64_t kGroup = 32;

Layer make_layer(std::int64_t tokens, int bits) {
  Layer layer;
  for (std::int64_t head = 0; head < kHeads; ++head) {
    const auto x = normal_values(tokens * kDim, static_cast<unsigned>(head));
    layer.keys.push_back(store(x, tokens, kDim, bits == 16 ? Storage::F16 : Storage::PerChannel, bits, kGroup));
    layer.values.push_back(store(x, tokens, kDim, bits == 16 ? Storage::F16 : Storage::PerToken, bits, kGroup));
  }
  const double element_bits = bits == 16 ? 16.0 : bits + 32.0 / kGroup;
  layer.megabytes = 2.0 * static_cast<double>(kHeads * tokens * kDim) * element_bits / 8e6;
  return layer;
}

void attend(const KernelSet& set, const Layer& layer, const std::vector<float>& query, Arithmetic arithmetic,
            std::int64_t tokens) {
  for (std::size_t head = 0; head < layer.keys.size(); ++head) {
    Partial partial(kQueriesPerHead, kDim);
    HeadAttention args;
    args.query = query.data();
    args.queries = kQueriesPerHead;
    args.head_dim = kDim;
    args.keys = &layer.keys[head].segment;
    args.values = &layer.values[head].segment;
    args.key_segments = args.value_segments = 1;
    args.token_end = tokens;
    args.arithmetic = arithmetic;
    attend_head(set, args, partial.view());
  }
}

#if defined(__x86_64__)
/// The published form of LUT-GEMM, tables of eight inputs, with gathers: what lut_gemm is measured against. One token.
__attribute__((target("avx2,fma,f16c"))) void lut_by_gathers(const BitPlaneWeight& weight, const float* x, float* y) {
  constexpr std::int64_t kWords = kLutStrip / 32;
  static float tables[4 * kWords][256];
  const std::int64_t outs = weight.out_features;
  std::fill(y, y + outs, 0.0F);
  for (std::int64_t word = 0; word < plane_words(weight.in_features); word += kWords) {
    for (std::int64_t run = 0; run < 4 * kWords; ++run) lut_table(x + 32 * word + 8 * run, tables[run]);
    const std::int64_t group = 32 * word / weight.group_size;
    for (int plane = 0; plane < weight.bits; ++plane)
      for (std::int64_t row = 0; row < outs; row += 8) {
        __m256 sums[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
        for (std::int64_t at = 0; at < kWords; ++at) {
          const std::uint32_t* const p = weight.planes + ((word + at) * weight.bits + plane) * outs + row;
          __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
          for (int k = 0; k < 4; ++k) {
            const __m256i index = _mm256_and_si256(bits, _mm256_set1_epi32(255));
            sums[k % 2] = _mm256_add_ps(sums[k % 2], _mm256_i32gather_ps(tables[4 * at + k], index, 4));
            bits = _mm256_srli_epi32(bits, 8);
          }
        }
        const auto* const alpha = static_cast<const std::uint16_t*>(weight.alpha);
        const __m256 scale = _mm256_cvtph_ps(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(alpha + (group * weight.bits + plane) * outs + row)));
        const __m256 sum = _mm256_add_ps(sums[0], sums[1]);
        _mm256_storeu_ps(y + row, _mm256_fmadd_ps(scale, sum, _mm256_loadu_ps(y + row)));
      }
  }
}
#endif

}  // namespace

class BenchKernels : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void packedAttentionAgainstHalfRows() {
    const double bandwidth = measure_copy_bandwidth(1);
    qInfo("copy bandwidth, 1 thread: %.1f GB/s", bandwidth / 1e9);
    const auto query = normal_values(kQueriesPerHead * kDim, 99);
    for (const std::int64_t tokens : {4096, 16384}) {
      std::vector<std::pair<int, Layer>> layers;
      for (const int bits : {16, 2, 3, 4, 8}) layers.emplace_back(bits, make_layer(tokens, bits));
      for (const SetName id : {SetName::Scalar, SetName::Avx2, SetName::Avx512}) {
        const KernelSet* const set = kernel_set(id);
        if (set == nullptr || (id == SetName::Scalar && tokens > 4096)) continue;
        double half_ms = 0.0;
        for (const auto& [bits, layer] : layers)
          for (const Arithmetic arithmetic : {Arithmetic::F32, Arithmetic::Fixed16}) {
            if (arithmetic == Arithmetic::Fixed16 && (bits == 16 || !set->vnni)) continue;
            const double ms = best_ms([&, &part = layer] { attend(*set, part, query, arithmetic, tokens); });
            if (bits == 16) half_ms = ms;
            qInfo(
                "%6lld tokens  %-7s %2d bits %-8s %8.3f ms  %.3f ns/element  %5.2f x f16  %3.0f %% of the copy "
                "bandwidth",
                static_cast<long long>(tokens), set->name, bits, arithmetic == Arithmetic::F32 ? "f32" : "fixed16", ms,
                ms * 1e6 / static_cast<double>(2 * kHeads * tokens * kDim), half_ms / ms,
                100.0 * layer.megabytes * 1e9 / ms / bandwidth);
            if (bits == 2 && tokens > 4096 && set->vnni && arithmetic == Arithmetic::Fixed16)
              QVERIFY2(half_ms / ms > 1.3, "2-bit attention is not faster than f16 rows");
          }
      }
    }
  }

  void packedGemvAgainstDense() {
    const std::int64_t rows = 4096;
    const std::int64_t columns = 4096;
    const std::int64_t group = 128;
    const auto values = normal_values(rows * columns, 1);
    const auto half = to_half(values);
    const auto x = normal_values(8 * columns, 2);
    std::vector<float> y(static_cast<std::size_t>(8 * rows));
    std::vector<std::uint16_t> scale(static_cast<std::size_t>(rows * columns / group), 0x3C00);
    std::vector<std::uint8_t> zero(scale.size(), 2);
    for (const SetName id : {SetName::Avx2, SetName::Avx512}) {
      const KernelSet* const set = kernel_set(id);
      if (set == nullptr) continue;
      for (const std::int64_t tokens : {1, 8}) {
        const GemvArgs args{x.data(), tokens, y.data(), 0, rows};
        const double f32 = best_ms([&] { set->dense_gemv(DenseType::F32, values.data(), columns, rows, args); });
        const double f16 = best_ms([&] { set->dense_gemv(DenseType::F16, half.data(), columns, rows, args); });
        qInfo("gemv %s, %lld tokens: f32 %.3f ms, f16 %.3f ms", set->name, static_cast<long long>(tokens), f32, f16);
        for (const int bits : {2, 3, 4, 8}) {
          std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows * packed_row_bytes(columns, bits)), 0x5A);
          const PackedWeight weight{bits, rows, columns, group, packed.data(), scale.data(), zero.data()};
          const double ms = best_ms([&] { set->packed_gemv(weight, args); });
          qInfo("  %d bits %.3f ms, %.2f x f16, %.2f x f32", bits, ms, f16 / ms, f32 / ms);
        }
      }
    }
  }

  void lutGemmAgainstDenseAndPacked() {
    const std::int64_t rows = 4096;
    const std::int64_t columns = 4096;
    const std::int64_t group = 128;
    const auto values = normal_values(rows * columns, 1);
    const auto x = normal_values(16 * columns, 2);
    std::vector<float> y(static_cast<std::size_t>(16 * rows));
    std::vector<std::uint16_t> scale(static_cast<std::size_t>(rows * columns / group), 0x3C00);
    std::vector<std::uint8_t> zero(scale.size(), 2);
    for (const SetName id : {SetName::Avx2, SetName::Avx512}) {
      const KernelSet* const set = kernel_set(id);
      if (set == nullptr) continue;
      for (const std::int64_t tokens : {1, 2, 4, 8, 16}) {
        const GemvArgs args{x.data(), tokens, y.data(), 0, rows};
        const double f32 = best_ms([&] { set->dense_gemv(DenseType::F32, values.data(), columns, rows, args); });
        qInfo("lut %s, %lld tokens: dense f32 %.3f ms", set->name, static_cast<long long>(tokens), f32);
        for (const int bits : {2, 3, 4}) {
          const BitPlanes planes(bits, rows, columns, group, false, 3);
          std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows * packed_row_bytes(columns, bits)), 0x5A);
          const PackedWeight uniform{bits, rows, columns, group, packed.data(), scale.data(), zero.data()};
          const double lut = best_ms([&] { set->lut_gemm(planes.weight, args, LutArithmetic::F32); });
          const double words = best_ms([&] { set->lut_gemm(planes.weight, args, LutArithmetic::Int16); });
          const double bytes = best_ms([&] { set->lut_gemm(planes.weight, args, LutArithmetic::Int8); });
          const double codes = best_ms([&] { set->packed_gemv(uniform, args); });
#if defined(__x86_64__)
          if (tokens == 1)
            qInfo("  %d bits by gathers: %.3f ms", bits,
                  best_ms([&] { lut_by_gathers(planes.weight, x.data(), y.data()); }));
#endif
          qInfo(
              "  %d bits: tables f32 %.3f ms, int16 %.3f ms, int8 %.3f ms (%.2f, %.2f, %.2f x dense f32), packed %.3f",
              bits, lut, words, bytes, f32 / lut, f32 / words, f32 / bytes, codes);
        }
      }
    }
  }

  void integerGemm() {
    const std::int64_t rows = 2048;
    const std::int64_t inner = 2048;
    const std::int64_t tokens = 128;
    std::vector<std::int8_t> codes(static_cast<std::size_t>(rows * inner), 3);
    std::vector<float> scale(static_cast<std::size_t>(rows), 1.0F);
    std::vector<std::int32_t> sums(static_cast<std::size_t>(rows));
    sum_rows(codes.data(), rows, inner, sums.data());
    const auto x = normal_values(tokens * inner, 2);
    std::vector<std::uint8_t> x_codes(x.size());
    std::vector<float> x_scale(tokens);
    std::vector<std::int32_t> x_zero(tokens);
    std::vector<std::int32_t> x_sums(tokens);
    std::vector<float> y(static_cast<std::size_t>(tokens * rows));
    const QuantizedActivations activations{x_codes.data(), x_scale.data(), x_zero.data(), x_sums.data()};
    const Int8Weight weight{rows, inner, codes.data(), scale.data(), nullptr, sums.data()};
    for (const SetName id : {SetName::Avx2, SetName::Avx512}) {
      const KernelSet* const set = kernel_set(id);
      if (set == nullptr) continue;
      const double quantize =
          best_ms([&] { set->quantize_activations(x.data(), tokens, inner, 8, ActivationRange::Affine, activations); });
      const double product = best_ms([&] { set->int8_gemm(weight, activations, tokens, 0, rows, y.data()); });
      const double dense = best_ms([&] {
        set->dense_gemv(DenseType::F32, x.data(), inner, tokens, {x.data(), tokens, y.data(), 0, tokens});
      });
      qInfo("int8 gemm %s, %lldx%lldx%lld: quantize %.3f ms, product %.3f ms, %.0f Gop/s; f32 rows %.0f Gop/s",
            set->name, static_cast<long long>(tokens), static_cast<long long>(rows), static_cast<long long>(inner),
            quantize, product, 2e-6 * static_cast<double>(tokens * rows * inner) / product,
            2e-6 * static_cast<double>(tokens * tokens * inner) / dense);
    }
  }
};

QTEST_GUILESS_MAIN(BenchKernels)
#include "tst_bench_kernels.moc"
