#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <QtTest>
#include <cmath>

#include "backend/model/affine_range.h"
#include "backend/model/decoder.h"
#include "backend/types/error.h"

namespace {

at::Tensor random(at::IntArrayRef shape, std::int64_t seed) {
  auto generator = at::detail::createCPUGenerator(static_cast<std::uint64_t>(seed));
  return at::randn(shape, generator, at::TensorOptions().dtype(at::kFloat));
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

/// Softmax attention by definition, in double, one query at a time.
at::Tensor brute_force_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const auto q = query.to(at::kDouble).contiguous(), k = key.to(at::kDouble).contiguous(),
             v = value.to(at::kDouble).contiguous();
  const auto qa = q.accessor<double, 3>(), ka = k.accessor<double, 3>(), va = v.accessor<double, 3>();
  const std::int64_t heads = q.size(0), queries = q.size(1), dim = q.size(2), keys = k.size(1),
                     group = heads / k.size(0);
  at::Tensor output = at::zeros({heads, queries, dim}, at::kDouble);
  auto oa = output.accessor<double, 3>();
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t t = 0; t < queries; ++t) {
      std::vector<double> weight;
      double highest = -1e300, sum = 0;
      for (std::int64_t s = 0; s <= keys - queries + t; ++s) {
        double dot = 0;
        for (std::int64_t d = 0; d < dim; ++d) dot += qa[h][t][d] * ka[h / group][s][d];
        weight.push_back(dot / std::sqrt(static_cast<double>(dim)));
        highest = std::max(highest, weight.back());
      }
      for (double& w : weight) sum += w = std::exp(w - highest);
      for (std::size_t s = 0; s < weight.size(); ++s)
        for (std::int64_t d = 0; d < dim; ++d)
          oa[h][t][d] += weight[s] / sum * va[h / group][static_cast<std::int64_t>(s)][d];
    }
  return output;
}

struct Tiny {
  qs::ArchitectureSpec spec;
  qs::DecoderWeights weights;
};

Tiny tiny_model() {
  Tiny tiny;
  tiny.spec = {.architecture = "LlamaForCausalLM",
               .layers = 2,
               .hidden_size = 16,
               .intermediate_size = 24,
               .vocab_size = 32,
               .heads = 4,
               .kv_heads = 2,
               .head_dim = 4,
               .max_context = 64};
  std::int64_t seed = 1;
  const auto linear = [&](std::int64_t out, std::int64_t in) {
    return std::make_shared<const qs::DenseLinear>(random({out, in}, seed++) * 0.3);
  };
  tiny.weights.embedding = std::make_shared<const qs::DenseLinear>(random({32, 16}, seed++));
  tiny.weights.final_norm = {random({16}, seed++), {}};
  tiny.weights.lm_head = linear(32, 16);
  for (int layer = 0; layer < 2; ++layer) {
    qs::DecoderBlock block;
    block.input_norm = {random({16}, seed++), {}};
    block.mlp_norm = {random({16}, seed++), {}};
    block.linears = {linear(16, 16), linear(8, 16),  linear(8, 16), linear(16, 16),
                     linear(24, 16), linear(24, 16), linear(16, 24)};
    tiny.weights.blocks.push_back(block);
  }
  return tiny;
}

at::Tensor run(const Tiny& tiny, const qs::RaggedBatch& batch, qs::LogitRows rows, qs::TapSink* taps = nullptr) {
  qs::FullPrecisionWindow attention;
  return qs::forward(tiny.spec, tiny.weights, batch, attention, rows, taps, {});
}

}  // namespace

class TestDecoder : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void rotationMatchesTheFormulaInDouble() {
    const at::Tensor x = random({2, 5, 8}, 3);
    const at::Tensor y = qs::apply_rope(x, 1000, {.theta = 500000.0});
    const auto xa = x.accessor<float, 3>();
    const auto ya = y.accessor<float, 3>();
    for (int h = 0; h < 2; ++h)
      for (int t = 0; t < 5; ++t)
        for (int i = 0; i < 4; ++i) {
          const double angle = (1000 + t) * std::pow(500000.0, -2.0 * i / 8);
          const double first = xa[h][t][i] * std::cos(angle) - xa[h][t][i + 4] * std::sin(angle);
          const double second = xa[h][t][i + 4] * std::cos(angle) + xa[h][t][i] * std::sin(angle);
          QVERIFY(std::abs(ya[h][t][i] - first) < 1e-6);
          QVERIFY(std::abs(ya[h][t][i + 4] - second) < 1e-6);
        }
  }

  void rotationAtPositionZeroChangesNothing() {
    const at::Tensor x = random({3, 1, 8}, 4);
    QVERIFY(at::equal(qs::apply_rope(x, 0, {.theta = 10000.0}), x));
  }

  void rotatedProductsDependOnTheDistanceOnly() {
    const at::Tensor q = random({1, 1, 16}, 5), k = random({1, 1, 16}, 6);
    const auto product = [&](std::int64_t a, std::int64_t b) {
      return (qs::apply_rope(q, a, {.theta = 10000.0}) * qs::apply_rope(k, b, {.theta = 10000.0})).sum().item<double>();
    };
    QVERIFY(std::abs(product(7, 3) - product(107, 103)) < 1e-4);
  }

  void attentionMatchesBruteForce_data() {
    QTest::addColumn<int>("heads");
    QTest::addColumn<int>("kvHeads");
    QTest::addColumn<int>("queries");
    QTest::addColumn<int>("keys");
    QTest::newRow("multi-head") << 4 << 4 << 9 << 9;
    QTest::newRow("grouped") << 6 << 2 << 9 << 9;
    QTest::newRow("one query after a past") << 4 << 1 << 1 << 13;
    QTest::newRow("some queries after a past") << 4 << 2 << 5 << 13;
    QTest::newRow("longer than one slab") << 8 << 4 << 1700 << 1700;
  }
  void attentionMatchesBruteForce() {
    QFETCH(int, heads);
    QFETCH(int, kvHeads);
    QFETCH(int, queries);
    QFETCH(int, keys);
    const at::Tensor q = random({heads, queries, 8}, 1), k = random({kvHeads, keys, 8}, 2),
                     v = random({kvHeads, keys, 8}, 3);
    QVERIFY(largest_difference(qs::causal_attention(q, k, v), brute_force_attention(q, k, v)) < 5e-6);
  }

  void halfTypesStayNearTheirF32Result() {
    const at::Tensor q = random({4, 6, 8}, 1), k = random({2, 6, 8}, 2), v = random({2, 6, 8}, 3);
    const at::Tensor exact = qs::causal_attention(q, k, v);
    for (const at::ScalarType type : {at::kHalf, at::kBFloat16}) {
      const at::Tensor seen = qs::causal_attention(q.to(type), k.to(type), v.to(type));
      QCOMPARE(seen.scalar_type(), type);
      QVERIFY(largest_difference(seen, exact) < 0.05);
    }
  }

  void quantizedAttentionNeedsNoFutureTokensWhenValuesAreQuantizedPerToken() {
    const at::Tensor q = random({4, 12, 8}, 1), k = random({2, 12, 8}, 2), v = random({2, 12, 8}, 3);
    const qs::AttentionQuantization per_token{.bits = 6, .values_per_token = true};
    const at::Tensor whole = qs::causal_attention(q, k, v, per_token);
    const at::Tensor start = qs::causal_attention(q.narrow(1, 0, 5), k.narrow(1, 0, 5), v.narrow(1, 0, 5), per_token);
    QVERIFY(largest_difference(whole.narrow(1, 0, 5), start) < 1e-6);
    const qs::AttentionQuantization published{.bits = 6, .values_per_token = false};
    QVERIFY(largest_difference(
                qs::causal_attention(q, k, v, published).narrow(1, 0, 5),
                qs::causal_attention(q.narrow(1, 0, 5), k.narrow(1, 0, 5), v.narrow(1, 0, 5), published)) > 1e-4);
  }

  void moreBitsBringQuantizedAttentionNearerToTheExactOne() {
    const at::Tensor q = random({4, 12, 8}, 1), k = random({2, 12, 8}, 2), v = random({2, 12, 8}, 3);
    const at::Tensor exact = qs::causal_attention(q, k, v);
    double previous = 1e9;
    for (const int bits : {3, 5, 8}) {
      const double error = (qs::causal_attention(q, k, v, {.bits = bits}) - exact).norm().item<double>();
      QVERIFY(error < previous);
      previous = error;
    }
    QVERIFY(previous < 0.1 * exact.norm().item<double>());
  }

  void rangesAlwaysHoldZeroAndAnEmptyRowIsExact() {
    const at::Tensor x =
        at::tensor({2.0f, 4.0f, 6.0f, 8.0f, 0.0f, 0.0f, 0.0f, 0.0f, -3.0f, 1.0f, 0.5f, 0.0f}).view({3, 4});
    const qs::AffineRange range = qs::affine_range(x, 4, false);
    QVERIFY(std::abs(range.scale[0][0].item<double>() - 8.0 / 15) < 1e-6);
    QCOMPARE(range.zero_point[0][0].item<double>(), 0.0);
    QVERIFY(std::abs(range.scale[1][0].item<double>() - 2.0 / 15) < 1e-6);
    QCOMPARE(range.zero_point[2][0].item<double>(), 11.0);  // rne(3 / (4 / 15)) = rne(11.25)
    QVERIFY(at::equal(qs::fake_quantize(x, 4, false).select(0, 1), x.select(0, 1)));
    QVERIFY(largest_difference(qs::fake_quantize(x, 8, false), x) <= 0.5 * 8.0 / 255 + 1e-6);
  }

  void symmetricRangesClipTheTopByHalfAStep() {
    const at::Tensor x = at::tensor({-7.5f, 7.5f, 0.0f, 1.0f}).view({1, 4});
    const at::Tensor seen = qs::fake_quantize(x, 4, true);  // step 1, codes 0..15 around 8
    QCOMPARE(seen[0][0].item<double>(), -8.0);
    QCOMPARE(seen[0][1].item<double>(), 7.0);
    QCOMPARE(seen[0][2].item<double>(), 0.0);
    const at::Tensor positive = at::tensor({0.0f, 15.0f}).view({1, 2});
    QCOMPARE(qs::affine_range(positive, 4, true).scale.item<double>(), 2.0);
    QCOMPARE(qs::affine_range(positive, 4, true, true).scale.item<double>(), 1.0);
  }

  void aRaggedBatchEqualsItsSequencesOneByOne() {
    const Tiny tiny = tiny_model();
    const std::vector<std::int64_t> a = {1, 5, 9, 2}, b = {3, 30, 7, 7, 7, 8, 20};
    qs::RaggedBatch both;
    both.ids = at::cat({at::tensor(a, at::kLong), at::tensor(b, at::kLong)});
    both.sequences = {{0, 4, 0}, {4, 7, 0}};
    const at::Tensor together = run(tiny, both, qs::LogitRows::All);
    QVERIFY(largest_difference(together.narrow(0, 0, 4), run(tiny, qs::RaggedBatch::single(a), qs::LogitRows::All)) <
            1e-5);
    QVERIFY(largest_difference(together.narrow(0, 4, 7), run(tiny, qs::RaggedBatch::single(b), qs::LogitRows::All)) <
            1e-5);
    const at::Tensor last = run(tiny, both, qs::LogitRows::LastOfSequence);
    QVERIFY(largest_difference(last[1], together[10]) < 1e-5);
    QVERIFY(!run(tiny, both, qs::LogitRows::None).defined());
  }

  void tapsSeeEveryLinearInModelOrder() {
    struct Sink : qs::TapSink {
      std::vector<std::string> names;
      int attentions = 0;
      void on_attention(const qs::AttentionCall& call) override {
        ++attentions;
        rotated = qs::apply_rope(call.key_pre_rope, call.first_position, {.theta = 10000.0})
                      .sub(call.key)
                      .abs()
                      .max()
                      .item<double>();
      }
      void on_linear_input(std::int64_t layer, qs::LinearKind kind, const at::Tensor& x) override {
        names.push_back(qs::linear_name(layer, kind));
        last_width = x.size(1);
      }
      double rotated = 1.0;
      std::int64_t last_width = 0;
    } sink;
    run(tiny_model(), qs::RaggedBatch::single({1, 2, 3}), qs::LogitRows::None, &sink);
    QCOMPARE(sink.names.size(), std::size_t{14});
    QCOMPARE(QString::fromStdString(sink.names.front()), QStringLiteral("layers.0.self_attn.q_proj"));
    QCOMPARE(QString::fromStdString(sink.names.back()), QStringLiteral("layers.1.mlp.down_proj"));
    QCOMPARE(sink.attentions, 2);
    QCOMPARE(sink.last_width, 24);
    QVERIFY(sink.rotated < 1e-6);
  }

  void tokensAndPositionsOutsideTheModelAreRefused() {
    const Tiny tiny = tiny_model();
    QVERIFY_EXCEPTION_THROWN(run(tiny, qs::RaggedBatch::single({1, 32}), qs::LogitRows::All), qs::Error);
    QVERIFY_EXCEPTION_THROWN(run(tiny, qs::RaggedBatch::single({-1}), qs::LogitRows::All), qs::Error);
    QVERIFY_EXCEPTION_THROWN(run(tiny, qs::RaggedBatch::single(std::vector<std::int64_t>(65, 1)), qs::LogitRows::All),
                             qs::Error);
    QVERIFY_EXCEPTION_THROWN(run(tiny, qs::RaggedBatch::single({}), qs::LogitRows::All), qs::Error);
  }

  void aStoppedJobLeavesTheForwardPass() {
    std::stop_source stop;
    stop.request_stop();
    const Tiny tiny = tiny_model();
    qs::FullPrecisionWindow attention;
    QVERIFY_EXCEPTION_THROWN(qs::forward(tiny.spec, tiny.weights, qs::RaggedBatch::single({1}), attention,
                                         qs::LogitRows::All, nullptr, qs::JobContext(stop.get_token(), {})),
                             qs::Cancelled);
  }

  void tiedTensorsAreCountedOnce() {
    Tiny tiny = tiny_model();
    const std::int64_t untied = tiny.weights.bytes();
    tiny.weights.lm_head = tiny.weights.embedding;
    QCOMPARE(untied - tiny.weights.bytes(), std::int64_t{32 * 16 * 4});
  }
};

QTEST_GUILESS_MAIN(TestDecoder)
#include "tst_decoder.moc"
