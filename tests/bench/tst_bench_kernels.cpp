#include <QtTest>
#include <chrono>

#include "kernels/copy_bandwidth.h"
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
