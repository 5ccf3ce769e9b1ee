#include <QtTest>
#include <algorithm>

#include "kernels/instruction_sets.h"
#include "tests/support/kv_segments.h"

using namespace kernel_fixture;

namespace {

std::vector<float> decoded(const std::vector<Stored>& parts, std::int64_t head_dim) {
  std::vector<float> all;
  for (const Stored& part : parts) {
    const auto begin = all.size();
    all.resize(begin + static_cast<std::size_t>(part.segment.tokens * head_dim));
    decode_segment(part.segment, head_dim, all.data() + begin, head_dim);
  }
  return all;
}

std::vector<Segment> segments_of(const std::vector<Stored>& parts) {
  std::vector<Segment> all;
  for (const Stored& part : parts) all.push_back(part.segment);
  return all;
}

}  // namespace

/// Runs on the kernel set that QUANTOSCOPE_KERNELS names; registered once per set.
class TestKernels : public QObject {
  Q_OBJECT

  const KernelSet& set_ = kernel_set();

 private Q_SLOTS:
  void initTestCase() {
    if (!kernel_set_problem().empty()) QSKIP(qPrintable(QString::fromStdString(kernel_set_problem())));
    qInfo("kernel set: %s%s", set_.name, set_.vnni ? " with vnni" : "");
  }

  void theForcedSetIsTheOneThatRuns() {
    const QByteArray forced = qgetenv("QUANTOSCOPE_KERNELS");
    if (!forced.isEmpty()) QCOMPARE(QByteArray(kernel_set_name()), forced);
    QCOMPARE(kernel_set(set_.id), &set_);
  }

  void halvesConvertAsTheScalarFormDoes() {
    std::vector<std::uint16_t> halves(65536 + 5);
    for (std::size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<std::uint16_t>(i);
    std::vector<float> wide(halves.size());
    std::vector<float> expected(halves.size());
    set_.f16_to_f32(halves.data(), wide.data(), static_cast<std::int64_t>(wide.size()));
    f16_to_f32_scalar(halves.data(), expected.data(), static_cast<std::int64_t>(wide.size()));
    QVERIFY(std::memcmp(wide.data(), expected.data(), wide.size() * sizeof(float)) == 0);
    std::vector<float> values = normal_values(100003, 1);
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = std::ldexp(values[i], static_cast<int>(i % 48) - 30);
    std::vector<std::uint16_t> narrow(values.size());
    set_.f32_to_f16(values.data(), narrow.data(), static_cast<std::int64_t>(values.size()));
    QCOMPARE(narrow, to_half(values));
  }

  void equalValuesGetCodeAndScaleZero() {
    const std::vector<float> x(64, -1.25F);
    std::vector<std::uint8_t> codes(64, 9);
    std::vector<float> scale(2, 9.0F);
    std::vector<float> low(2);
    set_.quantize_rows({x.data(), 1, 64, 64, 32, 2, Compute::F32, codes.data(), scale.data(), low.data()});
    QCOMPARE(codes, std::vector<std::uint8_t>(64, 0));
    QCOMPARE(scale, std::vector<float>(2, 0.0F));
    QCOMPARE(low, std::vector<float>(2, -1.25F));
    std::vector<float> back(64);
    dequantize_rows(codes.data(), scale.data(), low.data(), 1, 64, 32, Compute::F32, back.data());
    QCOMPARE(back, x);
  }

  void aRampOfLevelsIsExactAndHalvesGoToEven() {
    const std::vector<float> x = {0, 1, 2, 3, 0.5F, 1.5F, 2.5F, 3};
    std::vector<std::uint8_t> codes(8);
    float scale = 0;
    float low = 0;
    set_.quantize_rows({x.data(), 1, 8, 8, 8, 2, Compute::F32, codes.data(), &scale, &low});
    QCOMPARE(codes, (std::vector<std::uint8_t>{0, 1, 2, 3, 0, 2, 2, 3}));
    QCOMPARE(scale, 1.0F);
  }

  void codesEqualTheScalarOnes_data() {
    QTest::addColumn<int>("rows");
    QTest::addColumn<int>("columns");
    QTest::addColumn<int>("group");
    for (const auto& [rows, columns, group] :
         {std::array{32, 128, 32}, {64, 40, 8}, {48, 24, 12}, {16, 7, 7}, {128, 64, 64}})
      QTest::addRow("%dx%d by %d", rows, columns, group) << rows << columns << group;
  }
  void codesEqualTheScalarOnes() {
    QFETCH(const int, rows);
    QFETCH(const int, columns);
    QFETCH(const int, group);
    std::vector<float> x = normal_values(rows * columns, 7);
    for (std::size_t i = 0; i < x.size(); i += 5) x[i] = x[i / 2];
    for (const Compute compute : {Compute::F32, Compute::F16}) {
      if (compute == Compute::F16)
        for (float& value : x) value = round_to_f16(value);
      for (const int bits : {1, 2, 3, 4, 8}) {
        std::vector<std::uint8_t> codes(x.size());
        std::vector<std::uint8_t> expected(x.size());
        std::vector<float> scale(x.size());
        std::vector<float> low(x.size());
        std::vector<float> expected_scale(x.size());
        std::vector<float> expected_low(x.size());
        set_.quantize_rows({x.data(), rows, columns, columns, group <= columns ? group : columns, bits, compute,
                            codes.data(), scale.data(), low.data()});
        quantize_rows_scalar({x.data(), rows, columns, columns, group <= columns ? group : columns, bits, compute,
                              expected.data(), expected_scale.data(), expected_low.data()});
        QCOMPARE(codes, expected);
        QCOMPARE(scale, expected_scale);
        QCOMPARE(low, expected_low);
        const int row_group = rows % group == 0 ? group : rows;
        set_.quantize_columns(
            {x.data(), rows, columns, columns, row_group, bits, compute, codes.data(), scale.data(), low.data()});
        quantize_columns_scalar({x.data(), rows, columns, columns, row_group, bits, compute, expected.data(),
                                 expected_scale.data(), expected_low.data()});
        QCOMPARE(codes, expected);
        QCOMPARE(scale, expected_scale);
        QCOMPARE(low, expected_low);
      }
    }
  }

  void packedAttentionEqualsTheBruteForce_data() {
    QTest::addColumn<int>("headDim");
    QTest::addColumn<int>("queries");
    QTest::addColumn<int>("keyBits");
    QTest::addColumn<int>("valueBits");
    QTest::addColumn<bool>("perTokenKeys");
    QTest::addColumn<bool>("fixed16");
    for (const int dim : {8, 64, 80, 128})
      for (const int bits : {2, 3, 4, 8})
        for (const bool per_token : {false, true})
          for (const bool fixed : {false, true}) {
            const int queries = 1 + (dim + bits + per_token) % 6;
            QTest::addRow("dim %d, queries %d, bits %d, %s, %s", dim, queries, bits,
                          per_token ? "per token" : "per channel", fixed ? "fixed16" : "f32")
                << dim << queries << bits
                << (bits == 3   ? 2
                    : bits == 8 ? 3
                                : bits)
                << per_token << fixed;
          }
  }
  void packedAttentionEqualsTheBruteForce() {
    QFETCH(const int, headDim);
    QFETCH(const int, queries);
    QFETCH(const int, keyBits);
    QFETCH(const int, valueBits);
    QFETCH(const bool, perTokenKeys);
    QFETCH(const bool, fixed16);
    const std::int64_t group = headDim == 8 ? 8 : headDim == 80 ? 16 : 32;
    const std::int64_t quantized = 13 * group;
    const std::int64_t recent = 29;
    const std::int64_t tokens = 3 + quantized + recent;
    const auto rows = [&](std::int64_t n, unsigned seed) { return normal_values(n * headDim, seed); };
    std::vector<Stored> keys;
    std::vector<Stored> values;
    keys.push_back(store(rows(3, 1), 3, headDim, Storage::F32, 0, 0));
    keys.push_back(store(rows(quantized, 2), quantized, headDim, perTokenKeys ? Storage::PerToken : Storage::PerChannel,
                         keyBits, group));
    keys.push_back(store(rows(recent, 3), recent, headDim, Storage::F16, 0, 0));
    values.push_back(store(rows(quantized - 11, 4), quantized - 11, headDim, Storage::PerToken, valueBits, group));
    values.push_back(store(rows(tokens - quantized + 11, 5), tokens - quantized + 11, headDim, Storage::F16, 0, 0));
    std::vector<float> query = normal_values(queries * headDim, 6);
    for (float& q : query) q *= 2.0F / std::sqrt(static_cast<float>(headDim));

    const auto key_list = segments_of(keys);
    const auto value_list = segments_of(values);
    HeadAttention args;
    args.query = query.data();
    args.queries = queries;
    args.head_dim = headDim;
    args.keys = key_list.data();
    args.values = value_list.data();
    args.key_segments = static_cast<std::int64_t>(key_list.size());
    args.value_segments = static_cast<std::int64_t>(value_list.size());
    args.token_end = tokens;
    args.arithmetic = fixed16 ? Arithmetic::Fixed16 : Arithmetic::F32;
    Partial whole(queries, headDim);
    attend_head(set_, args, whole.view());
    std::vector<float> out(static_cast<std::size_t>(queries * headDim));
    finish_attention(whole.view(), queries, headDim, out.data());

    const auto expected =
        brute_force(query, queries, headDim, decoded(keys, headDim), decoded(values, headDim), tokens);
    // f32 sums of 128 terms of size 1; Fixed16 adds up to 2^-16 of the largest folded value a term:
    // weights of a tile far below its largest are lost.
    const double tolerance = fixed16 ? 1e-3 : 2e-5;
    for (std::size_t i = 0; i < out.size(); ++i)
      QVERIFY2(std::fabs(static_cast<double>(out[i]) - expected[i]) < tolerance,
               qPrintable(QString("%1: %2, expected %3").arg(i).arg(out[i]).arg(expected[i])));

    Partial first(queries, headDim);
    Partial second(queries, headDim);
    args.token_end = 77;
    attend_head(set_, args, first.view());
    args.token_begin = 77;
    args.token_end = tokens;
    attend_head(set_, args, second.view());
    merge_partial(first.view(), second.view(), queries, headDim);
    std::vector<float> merged(out.size());
    finish_attention(first.view(), queries, headDim, merged.data());
    for (std::size_t i = 0; i < out.size(); ++i) QVERIFY(std::fabs(merged[i] - out[i]) < (fixed16 ? 1e-3F : 2e-5F));
  }

  void groupsMayRunOverHeads() {
    const std::int64_t head_dim = 16;
    const std::int64_t heads = 4;
    const std::int64_t tokens = 40;
    const std::int64_t columns = heads * head_dim;
    const auto x = normal_values(tokens * columns, 11);
    const auto query = normal_values(2 * head_dim, 12);
    for (const std::int64_t group : {64, 32}) {
      std::vector<std::uint8_t> codes(x.size());
      std::vector<float> scale(static_cast<std::size_t>(tokens * columns / group));
      std::vector<float> low(scale.size());
      quantize_rows_scalar(
          {x.data(), tokens, columns, columns, group, 4, Compute::F32, codes.data(), scale.data(), low.data()});
      const auto half_scale = to_half(scale);
      const auto half_low = to_half(low);
      std::vector<float> rounded_scale(scale.size());
      std::vector<float> rounded_low(scale.size());
      f16_to_f32_scalar(half_scale.data(), rounded_scale.data(), static_cast<std::int64_t>(scale.size()));
      f16_to_f32_scalar(half_low.data(), rounded_low.data(), static_cast<std::int64_t>(scale.size()));
      std::vector<float> seen(x.size());
      dequantize_rows(codes.data(), rounded_scale.data(), rounded_low.data(), tokens, columns, group, Compute::F32,
                      seen.data());
      for (std::int64_t head = 0; head < heads; ++head) {
        std::vector<std::uint8_t> packed(static_cast<std::size_t>(tokens * packed_row_bytes(head_dim, 4)));
        std::vector<float> rows;
        for (std::int64_t t = 0; t < tokens; ++t) {
          pack_row(codes.data() + t * columns + head * head_dim, head_dim, 4,
                   packed.data() + t * packed_row_bytes(head_dim, 4));
          const float* const row = seen.data() + t * columns + head * head_dim;
          rows.insert(rows.end(), row, row + head_dim);
        }
        Segment segment;
        segment.storage = Storage::PerToken;
        segment.bits = 4;
        segment.tokens = tokens;
        segment.data = packed.data();
        segment.stride = packed_row_bytes(head_dim, 4);
        segment.scale = half_scale.data() + head * head_dim / group;
        segment.group_min = half_low.data() + head * head_dim / group;
        segment.scale_stride = columns / group;
        segment.group_size = group;
        segment.channel_offset = head * head_dim % group;
        HeadAttention args;
        args.query = query.data();
        args.queries = 2;
        args.head_dim = head_dim;
        args.keys = args.values = &segment;
        args.key_segments = args.value_segments = 1;
        args.token_end = tokens;
        Partial partial(2, head_dim);
        attend_head(set_, args, partial.view());
        std::vector<float> out(static_cast<std::size_t>(2 * head_dim));
        finish_attention(partial.view(), 2, head_dim, out.data());
        const auto expected = brute_force(query, 2, head_dim, rows, rows, tokens);
        for (std::size_t i = 0; i < out.size(); ++i)
          QVERIFY(std::fabs(static_cast<double>(out[i]) - expected[i]) < 2e-5);
      }
    }
  }

  void packedGemvEqualsTheBruteForce_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("rows");
    QTest::addColumn<int>("columns");
    QTest::addColumn<int>("group");
    for (const int bits : {2, 3, 4, 8})
      for (const auto& [rows, columns, group] : {std::array{40, 128, 32}, {37, 96, 96}, {16, 64, 8}, {5, 24, 24}})
        QTest::addRow("%d bits, %dx%d by %d", bits, rows, columns, group) << bits << rows << columns << group;
  }
  void packedGemvEqualsTheBruteForce() {
    QFETCH(const int, bits);
    QFETCH(const int, rows);
    QFETCH(const int, columns);
    QFETCH(const int, group);
    const std::int64_t tokens = 15;
    std::mt19937 random(3);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * columns));
    for (auto& code : codes) code = static_cast<std::uint8_t>(random() % (1U << bits));
    std::vector<float> scale = normal_values(rows * columns / group, 4);
    const auto half = to_half(scale);
    f16_to_f32_scalar(half.data(), scale.data(), static_cast<std::int64_t>(scale.size()));
    std::vector<std::uint8_t> zero(scale.size());
    for (auto& z : zero) z = static_cast<std::uint8_t>(random() % (1U << bits));
    std::vector<std::uint8_t> packed(static_cast<std::size_t>(rows * packed_row_bytes(columns, bits)));
    pack_weight(codes.data(), rows, columns, bits, packed.data());
    const auto x = normal_values(tokens * columns, 5);
    std::vector<float> y(static_cast<std::size_t>(tokens * rows), 99.0F);
    const PackedWeight weight{bits, rows, columns, group, packed.data(), half.data(), zero.data()};
    if (rows > 16) set_.packed_gemv(weight, {x.data(), tokens, y.data(), 0, 16});
    set_.packed_gemv(weight, {x.data(), tokens, y.data(), rows > 16 ? 16 : 0, rows});
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t row = 0; row < rows; ++row) {
        double sum = 0.0;
        double size = 1.0;
        for (std::int64_t i = 0; i < columns; ++i) {
          const std::int64_t at = row * (columns / group) + i / group;
          const double w = static_cast<double>(scale[at]) * (codes[row * columns + i] - zero[at]);
          sum += w * static_cast<double>(x[t * columns + i]);
          size += static_cast<double>(scale[at] * scale[at]) * std::pow(4.0, bits);
        }
        QVERIFY(std::fabs(sum - static_cast<double>(y[t * rows + row])) < 2e-6 * std::sqrt(size * columns));
      }
  }

  void denseGemvEqualsTheBruteForce() {
    const std::int64_t rows = 11;
    const std::int64_t columns = 77;
    const std::int64_t tokens = 6;
    const auto x = normal_values(tokens * columns, 1);
    std::vector<float> w = normal_values(rows * columns, 2);
    for (float& value : w) value = bf16_to_f32(f32_to_bf16(round_to_f16(value)));
    const auto half = to_half(w);
    std::vector<std::uint16_t> brain(w.size());
    f32_to_bf16(w.data(), brain.data(), static_cast<std::int64_t>(w.size()));
    const void* const stored[] = {w.data(), half.data(), brain.data()};
    for (const DenseType type : {DenseType::F32, DenseType::F16, DenseType::BF16}) {
      std::vector<float> y(static_cast<std::size_t>(tokens * rows));
      set_.dense_gemv(type, stored[static_cast<int>(type)], columns, rows, {x.data(), tokens, y.data(), 0, rows});
      for (std::int64_t t = 0; t < tokens; ++t)
        for (std::int64_t row = 0; row < rows; ++row) {
          double sum = 0.0;
          for (std::int64_t i = 0; i < columns; ++i)
            sum += static_cast<double>(w[row * columns + i]) * static_cast<double>(x[t * columns + i]);
          QVERIFY(std::fabs(sum - static_cast<double>(y[t * rows + row])) < 2e-5);
        }
    }
  }

  void activationsAndIntegerProductsAreExact() {
    for (const std::int64_t inner : {256, 83})
      for (const ActivationRange range : {ActivationRange::Affine, ActivationRange::Absmax}) {
        const std::int64_t tokens = 6;
        const std::int64_t rows = 71;
        auto x = normal_values(tokens * inner, 8);
        for (std::int64_t i = 0; i < inner; ++i) x[static_cast<std::size_t>(i)] = 0.0F;
        for (const int bits : {4, 8}) {
          std::vector<std::uint8_t> codes(x.size());
          std::vector<std::uint8_t> expected_codes(x.size());
          std::vector<float> scale(tokens);
          std::vector<float> expected_scale(tokens);
          std::vector<std::int32_t> zero(tokens);
          std::vector<std::int32_t> expected_zero(tokens);
          std::vector<std::int32_t> sums(tokens);
          std::vector<std::int32_t> expected_sums(tokens);
          const QuantizedActivations a{codes.data(), scale.data(), zero.data(), sums.data()};
          const QuantizedActivations b{expected_codes.data(), expected_scale.data(), expected_zero.data(),
                                       expected_sums.data()};
          set_.quantize_activations(x.data(), tokens, inner, bits, range, a);
          quantize_activations_scalar(x.data(), tokens, inner, bits, range, b);
          QCOMPARE(codes, expected_codes);
          QCOMPARE(scale, expected_scale);
          QCOMPARE(zero, expected_zero);
          QCOMPARE(sums, expected_sums);
          for (std::size_t i = 0; i < x.size(); ++i) {
            const std::size_t t = i / static_cast<std::size_t>(inner);
            QVERIFY(std::fabs(scale[t] * static_cast<float>(codes[i] - zero[t]) - x[i]) <= 1.001F * scale[t]);
          }
          std::mt19937 random(9);
          std::vector<std::int8_t> weights(static_cast<std::size_t>(rows * inner));
          for (auto& w : weights) w = static_cast<std::int8_t>(random());
          weights[0] = -128;
          const auto weight_scale = normal_values(rows, 10);
          std::vector<std::int32_t> weight_zero(static_cast<std::size_t>(rows));
          for (auto& z : weight_zero) z = static_cast<std::int32_t>(random() % 256) - 128;
          std::vector<std::int32_t> weight_sums(static_cast<std::size_t>(rows));
          sum_rows(weights.data(), rows, inner, weight_sums.data());
          for (const std::int32_t* const zeros :
               {static_cast<const std::int32_t*>(nullptr), static_cast<const std::int32_t*>(weight_zero.data())}) {
            const Int8Weight weight{rows, inner, weights.data(), weight_scale.data(), zeros, weight_sums.data()};
            std::vector<float> y(static_cast<std::size_t>(tokens * rows));
            std::vector<float> expected(y.size());
            set_.int8_gemm(weight, a, tokens, 0, rows, y.data());
            for (std::int64_t t = 0; t < tokens; ++t)
              for (std::int64_t row = 0; row < rows; ++row) {
                std::int64_t sum = 0;
                for (std::int64_t i = 0; i < inner; ++i)
                  sum += static_cast<std::int64_t>(codes[t * inner + i] - zero[t]) *
                         (weights[row * inner + i] - (zeros ? zeros[row] : 0));
                expected[t * rows + row] = static_cast<float>(sum) * (scale[t] * weight_scale[row]);
              }
            QCOMPARE(y, expected);
            if (set_.vnni) {
              int8_gemm_avx512(weight, a, tokens, 0, rows, y.data());
              QCOMPARE(y, expected);
            }
          }
        }
      }
  }

  void exponentialsAreAccurate() {
    std::vector<float> x(1000);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = 3.0F - static_cast<float>(i) * 0.09F;
    std::vector<float> weights = x;
    double expected = 0.0;
    const float sum = set_.exp_sum(weights.data(), static_cast<std::int64_t>(x.size()), 3.0F);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double exact = std::exp(static_cast<double>(x[i]) - 3.0);
      expected += exact;
      QVERIFY(std::fabs(static_cast<double>(weights[i]) - exact) <= 4e-7 * exact + 2e-38);
    }
    QVERIFY(std::fabs(static_cast<double>(sum) - expected) < 1e-5 * expected);
  }

  void symmetricCodesFollowTheDefinition() {
    const std::vector<float> x = {-2, -1, 0, 1, 2, 0.5F, 0, 0};
    std::vector<std::int8_t> codes(8);
    std::vector<float> scale(2);
    quantize_rows_symmetric(x.data(), 1, 8, 8, 4, 2, Compute::F32, codes.data(), scale.data());
    QCOMPARE(codes, (std::vector<std::int8_t>{-1, 0, 0, 0, 1, 0, 0, 0}));
    QCOMPARE(scale, (std::vector<float>{2, 2}));
    const std::vector<float> zeros(8, 0.0F);
    quantize_rows_symmetric(zeros.data(), 1, 8, 8, 8, 8, Compute::F32, codes.data(), scale.data());
    QCOMPARE(scale[0], 1e-5F / 127.0F);
  }
};

QTEST_GUILESS_MAIN(TestKernels)
#include "tst_kernels.moc"
