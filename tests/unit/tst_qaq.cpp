#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <QtTest>
#include <cmath>
#include <limits>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/normal_quantile.h"
#include "backend/methods/qaq.h"
#include "backend/methods/qaq_rows.h"
#include "backend/types/error.h"
#include "kernels/dispatch.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

Qaq method(const std::string& setup) { return Qaq(parse_kv_setup(setup).value().params); }

template <typename Call>
QString message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
  return {};
}

/// f64 [kv_heads, tokens]: softmax weights, the largest of the query heads of a KV head.
at::Tensor weights_of(const at::Tensor& query, const std::vector<at::Tensor>& keys) {
  const at::Tensor k = at::stack(keys, 1).to(at::kDouble);  // [kv_heads, tokens, head_dim]
  const std::int64_t heads = query.size(0), group = heads / k.size(0);
  const at::Tensor q = query.to(at::kDouble).view({k.size(0), group, -1});
  return at::softmax(at::bmm(q, k.transpose(1, 2)) / std::sqrt(static_cast<double>(query.size(1))), -1).amax(1);
}

}  // namespace

class TestQaq : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void initTestCase() { at::set_num_threads(1); }

  void theNormalQuantileIsExactToTwelveDigits() {
    // Reference values to 16 digits.
    QVERIFY(std::fabs(normal_quantile(0.975) - 1.959963984540054) < 1e-12);
    QVERIFY(std::fabs(normal_quantile(0.84134474606854293) - 1.0) < 1e-12);
    QVERIFY(std::fabs(normal_quantile(0.001) + 3.090232306167813) < 1e-12);
    QVERIFY(std::fabs(normal_quantile(1e-10) + 6.361340902404056) < 1e-11);
    QCOMPARE(normal_quantile(0.5), 0.0);
    for (const double p : {1e-300, 1e-20, 1e-5, 0.02, 0.3, 0.4999, 0.7, 0.99}) {
      const double back = 0.5 * std::erfc(-normal_quantile(p) / std::sqrt(2.0));
      QVERIFY2(std::fabs(back - p) < 1e-12 * std::max(p, 1e-3), std::to_string(p).c_str());
    }
    QVERIFY(std::isinf(normal_quantile(0.0)) && std::isinf(normal_quantile(1.0)));
  }

  void fieldsOfAnyWidthComeBackAndDecodeAlikeInEverySet() {
    std::mt19937_64 generator(3);
    for (int bits = 0; bits <= 16; ++bits) {
      for (const std::int64_t count : {0, 1, 7, 8, 9, 63, 64, 126, 1022}) {
        std::vector<std::uint16_t> codes(static_cast<std::size_t>(count)), back(codes.size());
        for (std::uint16_t& code : codes) code = static_cast<std::uint16_t>(generator() & ((1u << bits) - 1u));
        // Exactly the bytes that are promised: reading past them is the sanitizer's to find.
        std::vector<std::uint8_t> packed(static_cast<std::size_t>(kernels::field_bytes(count, bits)));
        kernels::pack_fields(codes.data(), count, bits, packed.data());
        kernels::unpack_fields(packed.data(), count, bits, back.data());
        QVERIFY(back == codes);
        if (bits == 0 || bits == 16) continue;
        std::vector<float> expected(codes.size()), x(codes.size());
        const kernels::FieldRun run{packed.data(), count, bits, 0.37F, -1.1F};
        kernels::decode_fields_scalar(run, expected.data());
        for (const auto id : {kernels::SetName::Scalar, kernels::SetName::Avx2, kernels::SetName::Avx512}) {
          if (kernels::kernel_set(id) == nullptr) continue;
          kernels::kernel_set(id)->decode_fields(run, x.data());
          QVERIFY(x == expected);
        }
      }
    }
  }

  void outliersAreTheOrderStatisticsOfTheRule() {
    // 64 elements, 1 %: the smallest and the largest.
    std::vector<float> x(64);
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>((i * 37) % 64);
    std::vector<std::uint8_t> mask(64);
    QCOMPARE(qaq_outliers(x.data(), 64, 0.01, mask.data()), std::int64_t{2});
    for (std::size_t i = 0; i < x.size(); ++i) QCOMPARE(mask[i] != 0, x[i] == 0.0f || x[i] == 63.0f);
    QCOMPARE(qaq_regular_outliers(64, 0.01), std::int64_t{2});
    QCOMPARE(qaq_outliers(x.data(), 64, 0.0, mask.data()), std::int64_t{0});
    // Ties at the lower threshold are all outliers, ties at the upper one are not.
    for (std::size_t i = 0; i < x.size(); ++i) x[i] = i < 5 ? -1.0f : i < 10 ? 9.0f : 0.1f * static_cast<float>(i % 7);
    QCOMPARE(qaq_outliers(x.data(), 64, 0.01, mask.data()), std::int64_t{5});
    QVERIFY(mask[0] && mask[4] && !mask[5] && !mask[9]);
  }

  void theUniformGridIsCentredOnTheMean() {
    const QaqSettings settings{.outliers_ratio = 0.0, .use_attentions = false, .store = GroupStore::F32};
    const std::vector<float> x = {-1.0f, 0.0f, 1.0f, 8.0f};  // mean 2, range 9
    const std::vector<std::uint8_t> none(4, 0);
    std::vector<std::uint16_t> codes(4);
    std::vector<float> back(4);
    const QaqStatistics statistics = qaq_statistics(x.data(), 4, none.data(), false);
    QCOMPARE(statistics.mean, 2.0f);
    QCOMPARE(statistics.range, 9.0f);
    QaqVector vector = qaq_encode(settings, x.data(), 4, none.data(), statistics, 2, codes.data());
    QCOMPARE(vector.scale, 2.25f);
    qaq_decode(settings, vector, codes.data(), 4, back.data());
    QVERIFY(back == (std::vector<float>{-0.25f, -0.25f, 2.0f, 4.25f}));  // the top saturates at mean + scale
    vector = qaq_encode(settings, x.data(), 4, none.data(), statistics, 1, codes.data());
    qaq_decode(settings, vector, codes.data(), 4, back.data());
    QVERIFY(back == (std::vector<float>{-2.5f, 2.0f, 2.0f, 2.0f}));
    vector = qaq_encode(settings, x.data(), 4, none.data(), statistics, 0, codes.data());
    qaq_decode(settings, vector, codes.data(), 4, back.data());
    QVERIFY(back == (std::vector<float>{2.0f, 2.0f, 2.0f, 2.0f}));
    vector = qaq_encode(settings, x.data(), 4, none.data(), statistics, 16, codes.data());
    qaq_decode(settings, vector, codes.data(), 4, back.data());
    QVERIFY(back == x);
  }

  void theNormalCellsHaveEqualProbability() {
    std::mt19937_64 generator(4);
    const at::Tensor x = test::random_kv(generator, {1, 40000});
    const QaqTensor made = qaq_quantize(
        {.normal = true, .outliers_ratio = 0.0, .n_bits = 3, .use_attentions = false, .store = GroupStore::F32}, x, {});
    const at::Tensor counts = at::bincount(made.codes.view({-1}).to(at::kLong), {}, 8).to(at::kDouble) / 40000.0;
    QVERIFY(test::largest_difference(counts, at::full({8}, 0.125)) < 0.01);
    QVERIFY(std::fabs(qaq_normal_centres(3)[3] + 0.15731068461017069) < 1e-12);
  }

  void widthsFollowTheErrorBudget() {
    QaqSettings settings;
    // Keys at 100 tokens, e = 3, E = 300: epsilon = sqrt(0.04 * ln(10^6 / 99 * 9 + 1)).
    const double epsilon = std::sqrt(0.04 * std::log(1e6 / 99.0 * 9.0 + 1.0));
    QVERIFY(std::fabs(qaq_key_tolerance(settings, 100) - epsilon) < 1e-12);
    QCOMPARE(qaq_width(settings, 2.0 * epsilon * 2.999, epsilon), 2);  // 3 intervals fit 2 bits
    QCOMPARE(qaq_width(settings, 2.0 * epsilon * 3.001, epsilon), 3);
    QCOMPARE(qaq_width(settings, 1e9, epsilon), 4);
    QCOMPARE(qaq_width(settings, 0.0, epsilon), 1);
    QCOMPARE(qaq_width(settings, 1.0, qaq_key_tolerance(settings, 1)), 4);  // one token: the formula is singular
    QVERIFY(std::fabs(qaq_value_tolerance(settings, 48, 0.5) - 0.5 * 3.0 / 0.5) < 1e-12);
    QCOMPARE(qaq_width(settings, 1e9, qaq_value_tolerance(settings, 48, 0.0)), 1);  // no attention: fewest bits
    settings.n_bits_min = 0;
    QCOMPARE(qaq_width(settings, 1e9, qaq_value_tolerance(settings, 48, 0.0)), 0);
  }

  void packedCacheIsTheReferenceWithEveryLevelAndWidth_data() {
    QTest::addColumn<QString>("setup");
    QTest::newRow("fixed") << "qaq:use_attentions=false";
    QTest::newRow("no outliers") << "qaq:use_attentions=false,outliers=0,n_bits=3";
    QTest::newRow("symmetric") << "qaq:use_attentions=false,symmetric,n_bits=5";
    QTest::newRow("normal") << "qaq:use_attentions=false,method=normal,n_bits=3,level=layer";
    QTest::newRow("zero bits") << "qaq:use_attentions=false,n_bits=0,outliers=0.05";
    QTest::newRow("sixteen bits") << "qaq:use_attentions=false,n_bits=16";
    QTest::newRow("twelve bits, f32") << "qaq:use_attentions=false,n_bits=12,store=f32,level=layer";
    QTest::newRow("attention") << "qaq:err=0.05,n_bits_max=8";
    QTest::newRow("attention, layer") << "qaq:level=layer,err=0.05,n_bits_max=8,last_n=3,outliers=0.03";
    QTest::newRow("attention, all widths") << "qaq:err=0.001,n_bits_min=0,n_bits_max=16,last_n=1,store=f32";
  }
  void packedCacheIsTheReferenceWithEveryLevelAndWidth() {
    QFETCH(QString, setup);
    const Qaq qaq = method(setup.toStdString());
    std::mt19937_64 generator(11);
    for (const std::int64_t head_dim : {20, 64}) {
      const CacheShape shape{.heads = 6, .kv_heads = 3, .head_dim = head_dim};
      for (const std::int64_t tokens : {0, 1, 3, 60, 700}) {
        const at::Tensor key = test::random_kv(generator, {3, tokens, head_dim}, 5.0),
                         value = test::random_kv(generator, {3, tokens, head_dim}),
                         query = test::random_kv(generator, {6, tokens, head_dim});
        const auto cache = qaq.make_cache(shape);
        cache->observe_prompt(query);
        cache->prefill(key, value);
        const KvPrompt prompt{query, key, value, shape};
        const auto [keys, values] = cache->materialize();
        for (const KvRole role : {KvRole::Key, KvRole::Value}) {
          const TokenRange range = qaq.after_prefill(role, tokens);
          QCOMPARE(cache->quantized(role).size(), range.size());
          const at::Tensor& x = role == KvRole::Key ? key : value;
          at::Tensor expected = qaq.held_in_full_precision(x).clone();
          if (range.size() > 0)
            expected.narrow(1, 0, range.size())
                .copy_(qaq.quantize_prompt(prompt, role, {}).values.narrow(1, 0, range.size()));
          QVERIFY2((role == KvRole::Key ? keys : values).equal(expected), qPrintable(setup));
        }
      }
    }
  }

  void widthsAreFixedWhenATokenLeavesTheWindow_data() {
    QTest::addColumn<QString>("setup");
    QTest::addColumn<int>("prompt");
    for (const char* level : {"head", "layer"}) {
      for (const int prompt : {0, 2, 40}) {
        QTest::addRow("%s, prompt %d", level, prompt)
            << QStringLiteral("qaq:level=%1,err=0.02,last_n=4,n_bits_max=9,store=f32").arg(QLatin1String(level))
            << prompt;
      }
    }
  }
  void widthsAreFixedWhenATokenLeavesTheWindow() {
    QFETCH(QString, setup);
    QFETCH(int, prompt);
    const Qaq qaq = method(setup.toStdString());
    const QaqSettings& settings = qaq.settings();
    const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 16};
    const std::int64_t total = prompt + 25, window = settings.last_n;
    std::mt19937_64 generator(12);
    const at::Tensor key = test::random_kv(generator, {2, total, 16}),
                     value = test::random_kv(generator, {2, total, 16}),
                     query = test::random_kv(generator, {4, total, 16}) * 2.0;
    const auto cache = qaq.make_cache(shape);
    cache->observe_prompt(query.narrow(1, 0, prompt));
    cache->prefill(key.narrow(1, 0, prompt), value.narrow(1, 0, prompt));

    // The same by the rule, with every row of attention kept: a width is fixed from the last `window` rows.
    std::vector<at::Tensor> seen_keys, seen_values, rows;  // rows: f64 [kv_heads, tokens so far]
    const auto fix = [&](std::int64_t token, std::int64_t tokens) {
      const auto one = [&](const at::Tensor& x, bool is_key) {
        at::Tensor paid = at::zeros({2}, at::kDouble);
        for (std::int64_t row = tokens - window; row < tokens; ++row)
          if (row >= token) paid = at::maximum(paid, rows[row].select(1, token));
        const at::Tensor vectors = settings.level == QaqLevel::Head ? x : x.reshape({1, -1});
        if (settings.level != QaqLevel::Head) paid = paid.amax(0, true);
        at::Tensor limits = at::empty({vectors.size(0)}, at::kDouble);
        for (std::int64_t v = 0; v < limits.size(0); ++v)
          limits[v] = is_key ? qaq_key_tolerance(settings, tokens)
                             : qaq_value_tolerance(settings, tokens, paid[v].item<double>());
        return qaq_quantize(settings, vectors, limits).values.view({2, 16});
      };
      seen_keys[token] = one(key.select(1, token).contiguous(), true);
      seen_values[token] = one(value.select(1, token).contiguous(), false);
    };
    const auto push = [&](std::int64_t token) {
      seen_keys.push_back(key.select(1, token));
      seen_values.push_back(value.select(1, token));
      rows.push_back(weights_of(query.select(1, token), seen_keys));
    };
    for (std::int64_t token = 0; token < prompt; ++token) push(token);
    for (std::int64_t token = 0; token < prompt - window; ++token) fix(token, prompt);
    for (std::int64_t token = prompt; token < total; ++token) {
      push(token);
      const at::Tensor out =
          cache->append_and_attend(query.select(1, token), key.select(1, token), value.select(1, token));
      const at::Tensor expected =
          test::brute_force_attention(query.select(1, token), at::stack(seen_keys, 1), at::stack(seen_values, 1));
      QVERIFY(test::largest_difference(out, expected) < 2e-5);
      if (token >= window) fix(token - window, token + 1);
      const auto [keys, values] = cache->materialize();
      QVERIFY(test::largest_difference(keys, at::stack(seen_keys, 1)) < 1e-6);
      QVERIFY(test::largest_difference(values, at::stack(seen_values, 1)) < 1e-6);
      QCOMPARE(cache->quantized(KvRole::Value).size(), qaq.after_prefill(KvRole::Value, token + 1).size());
    }
  }

  void allocatedBitsAreTheStoredFormula() {
    std::mt19937_64 generator(13);
    const CacheShape shape{.heads = 2, .kv_heads = 2, .head_dim = 64};
    const at::Tensor key = test::random_kv(generator, {2, 4200, 64}), value = test::random_kv(generator, {2, 4200, 64});
    for (const char* setup : {"qaq:use_attentions=false", "qaq:use_attentions=false,n_bits=3,level=layer,outliers=0.02",
                              "qaq:use_attentions=false,symmetric,n_bits=4,outliers=0"}) {
      const Qaq qaq = method(setup);
      const auto cache = qaq.make_cache(shape);
      cache->prefill(key, value);
      const double expected = qaq.effective_bits(shape, 4200);
      QVERIFY2(std::fabs(cache->stats().effective_bits() / expected - 1.0) < 0.01, setup);
    }
    // Widths of their own: counted from what was stored. Records end on a byte; the width lies outside of them.
    const Qaq qaq = method("qaq:err=0.5,n_bits_max=6");
    QaqRows rows(2, 128, qaq.settings());
    const at::Tensor token_rows = test::random_kv(generator, {4200, 256}).contiguous();
    std::vector<double> tolerance(2 * 4200);
    std::uniform_real_distribution<double> uniform(0.02, 2.0);
    for (double& t : tolerance) t = uniform(generator);
    rows.append(token_rows.data_ptr<float>(), tolerance.data(), 4200);
    double bits = 0.0;
    for (std::int64_t t = 0; t < 4200; ++t)
      for (std::int64_t lane = 0; lane < 2; ++lane)
        bits += 4.0 + 8.0 * std::ceil((128.0 * qaq.stored_bits(rows.width_of(t, lane), 2, 128) - 4.0) / 8.0);
    CacheStats stats;
    rows.add_bytes(stats);
    QVERIFY(std::fabs(8.0 * static_cast<double>(stats.bytes()) / bits - 1.0) < 0.01);
    QCOMPARE(stats.bytes_outliers, std::int64_t{4200 * 2 * 2 * 2});
    QCOMPARE(stats.bytes_widths, std::int64_t{4200});
    QVERIFY(std::fabs(method("qaq:use_attentions=false").stored_bits(2.0, 2.0, 128) - 2.75) < 1e-12);
    QVERIFY(std::fabs(method("qaq:use_attentions=false").nominal_bits(2.0, 128) - 2.39) < 1e-12);
  }

  void degenerateInputStaysExactOrFinite() {
    for (const char* setup :
         {"qaq", "qaq:level=layer,outliers=0", "qaq:use_attentions=false,n_bits=0",
          "qaq:use_attentions=false,method=normal", "qaq:use_attentions=false,symmetric,n_bits=1"}) {
      const Qaq qaq = method(setup);
      for (const double constant : {0.0, -2.5}) {
        for (const std::int64_t tokens : {1, 4, 40}) {
          const auto cache = qaq.make_cache({.heads = 4, .kv_heads = 2, .head_dim = 32});
          const at::Tensor x = at::full({2, tokens, 32}, constant);
          cache->observe_prompt(at::zeros({4, tokens, 32}));
          cache->prefill(x, x);
          const at::Tensor out = cache->append_and_attend(at::ones({4, 32}), x.select(1, 0), x.select(1, 0));
          QVERIFY2(at::isfinite(out).all().item<bool>(), setup);
          // Symmetric grids of one bit cannot hold a constant.
          if (qaq.settings().symmetric) continue;
          QVERIFY2(test::largest_difference(out, at::full({4, 32}, constant)) < 1e-6, setup);
        }
      }
    }
  }

  void anUnobservedPromptGetsTheLargestValueWidth() {
    std::mt19937_64 generator(14);
    const Qaq qaq = method("qaq:err=1000,n_bits_min=2,n_bits_max=7");
    const CacheShape shape{.heads = 2, .kv_heads = 2, .head_dim = 32};
    const at::Tensor x = test::random_kv(generator, {2, 50, 32});
    const auto cache = qaq.make_cache(shape);
    cache->prefill(x, x);
    QVERIFY(
        cache->materialize().second.narrow(1, 0, 45).equal(qaq.quantize(x, KvRole::Value, {}).values.narrow(1, 0, 45)));
    const QaqTensor widest =
        qaq_quantize({.n_bits = 7, .use_attentions = false}, x.to(at::kHalf).to(at::kFloat).reshape({100, 32}), {});
    QVERIFY(qaq.quantize(x, KvRole::Value, {}).values.equal(widest.values.view({2, 50, 32})));
  }

  void whatCannotBeSaysWhy() {
    at::Tensor bad = at::ones({2, 8, 32});
    bad[1][5][3] = std::numeric_limits<float>::quiet_NaN();
    const QString nan = message_of([&] { method("qaq").quantize(bad, KvRole::Value, {}); });
    QVERIFY(nan.contains("head 1") && nan.contains("token 5") && nan.contains("not a number"));
    const QString token =
        message_of([] { method("qaq:level=token").make_cache({.heads = 1, .kv_heads = 1, .head_dim = 32}); });
    QVERIFY(token.contains("all layers") && token.contains("level=head"));
    QVERIFY(method("qaq:level=token").cannot_stream() == token.toStdString());
    QVERIFY(message_of([] { method("qaq:n_bits_min=5,n_bits_max=4"); }).contains("n_bits_min"));
    QVERIFY(message_of([] { method("qaq:method=normal"); }).contains("use_attentions=false"));
    QVERIFY(message_of([] {
              method("qaq:level=layer").check_fits({.heads = 400, .kv_heads = 400, .head_dim = 128});
            }).contains("level=head"));
  }
};

QTEST_APPLESS_MAIN(TestQaq)
#include "tst_qaq.moc"
