#include <ATen/ATen.h>

#include <QtTest>
#include <limits>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/types/error.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

std::unique_ptr<KvMethod> method(const std::string& setup) { return make_kv_method(parse_kv_setup(setup).value()); }

template <typename Call>
QString message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
  return "(no error)";
}

}  // namespace

class TestKivi : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void fourLevelsAtTwoBitsAreExact() {
    const at::Tensor key =
        at::arange(0, 128).remainder(4).to(at::kFloat).view({1, 128, 1}).expand({2, 128, 32}).contiguous();
    const QuantizedTensor keys = method("kivi")->quantize(key, KvRole::Key, {});
    QVERIFY(keys.values.equal(key));
    QVERIFY(keys.codes.to(at::kFloat).equal(key));
    const at::Tensor value =
        at::arange(0, 64).remainder(4).to(at::kFloat).view({1, 1, 64}).expand({1, 3, 64}).contiguous();
    QVERIFY(method("kivi")->quantize(value, KvRole::Value, {}).values.equal(value));
  }

  void constantGroupsReconstructExactlyWithCodeZero() {
    const at::Tensor x = at::full({2, 64, 64}, -3.25);
    for (const KvRole role : {KvRole::Key, KvRole::Value}) {
      for (const char* setup : {"kivi", "kivi:compute=f16"}) {
        const QuantizedTensor quantized = method(setup)->quantize(x, role, {});
        QVERIFY(quantized.values.equal(x));
        QVERIFY(quantized.codes.eq(0).all().item<bool>());
        QVERIFY(quantized.scale.eq(0).all().item<bool>());
      }
    }
  }

  void errorStaysBelowHalfAStep() {
    std::mt19937_64 generator(1);
    const at::Tensor x = test::random_kv(generator, {2, 96, 64}, 8.0);
    const auto kivi = method("kivi:bits=3,store=f32");
    const QuantizedTensor keys = kivi->quantize(x, KvRole::Key, {});
    QVERIFY(((keys.values - x).abs() <= keys.scale.repeat_interleave(32, 1) * 0.5 + 1e-5).all().item<bool>());
    const QuantizedTensor values = kivi->quantize(x, KvRole::Value, {});
    QVERIFY(((values.values - x).abs() <= values.scale.repeat_interleave(32, 2) * 0.5 + 1e-5).all().item<bool>());
  }

  void keysShareScalesAlongTokensAndValuesAlongChannels() {
    const auto kivi = method("kivi");
    const at::Tensor x = at::zeros({3, 70, 64});
    const QuantizedTensor keys = kivi->quantize(x, KvRole::Key, {}), values = kivi->quantize(x, KvRole::Value, {});
    QCOMPARE(keys.scale.sizes().vec(), (std::vector<std::int64_t>{3, 2, 64}));
    QCOMPARE(values.scale.sizes().vec(), (std::vector<std::int64_t>{3, 70, 2}));
    QVERIFY(keys.codes.narrow(1, 64, 6).eq(255).all().item<bool>());
    QVERIFY(keys.full_precision.narrow(1, 64, 6).all().item<bool>() &&
            !keys.full_precision.narrow(1, 0, 64).any().item<bool>());
  }

  void oneOutlierChannelDoesNotDisturbTheOthersKeys() {
    std::mt19937_64 generator(2);
    at::Tensor x = test::random_kv(generator, {1, 64, 64});
    const at::Tensor before = method("kivi")->quantize(x, KvRole::Key, {}).values.clone();
    x.select(2, 5).mul_(50.0);
    const at::Tensor after = method("kivi")->quantize(x, KvRole::Key, {}).values;
    QVERIFY(after.narrow(2, 6, 58).equal(before.narrow(2, 6, 58)));
  }

  void halfPrecisionArithmeticGivesHalfPrecisionValues() {
    std::mt19937_64 generator(3);
    const at::Tensor x = test::random_kv(generator, {2, 64, 64}).to(at::kHalf);
    const at::Tensor seen = method("kivi:compute=f16")->quantize(x.to(at::kFloat), KvRole::Value, {}).values;
    QVERIFY(seen.equal(seen.to(at::kHalf).to(at::kFloat)));
    // A value that lies half-way between two codes may fall on the other side; all others move by a rounding.
    const at::Tensor moved = (seen - method("kivi")->quantize(x.to(at::kFloat), KvRole::Value, {}).values).abs();
    QVERIFY(moved.gt(0.02).sum().item<int>() * 500 < moved.numel());
  }

  void segmentsFollowTheResidualRule() {
    const auto kivi = method("kivi:g=32,r=64");
    QCOMPARE(kivi->after_prefill(KvRole::Key, 150).size(), std::int64_t{128});
    QCOMPARE(kivi->after_prefill(KvRole::Value, 150).size(), std::int64_t{86});
    QCOMPARE(kivi->after_prefill(KvRole::Key, 63).size(), std::int64_t{0});
    // The 64th token is attended to before the flush that it causes.
    QCOMPARE(kivi->seen_by_query(KvRole::Key, 63).size(), std::int64_t{0});
    QCOMPARE(kivi->seen_by_query(KvRole::Key, 64).size(), std::int64_t{64});
    QCOMPARE(kivi->seen_by_query(KvRole::Value, 64).size(), std::int64_t{0});
    QCOMPARE(kivi->seen_by_query(KvRole::Value, 65).size(), std::int64_t{1});
  }

  void whatTheResidualHoldsIsCachedAsItIs() {
    std::mt19937_64 generator(4);
    const at::Tensor x = test::random_kv(generator, {2, 200, 64}).to(at::kHalf).to(at::kFloat);
    const auto kivi = method("kivi");
    const at::Tensor keys = as_cached(*kivi, x, KvRole::Key, {}), values = as_cached(*kivi, x, KvRole::Value, {});
    QVERIFY(keys.narrow(1, 128, 72).equal(x.narrow(1, 128, 72)) && !keys.narrow(1, 0, 128).equal(x.narrow(1, 0, 128)));
    QVERIFY(values.narrow(1, 72, 128).equal(x.narrow(1, 72, 128)) &&
            !values.narrow(1, 0, 72).equal(x.narrow(1, 0, 72)));
  }

  void effectiveBitsAreThoseOfThePaper() {
    const CacheShape shape{.heads = 32, .kv_heads = 32, .head_dim = 128};
    QVERIFY(std::abs(method("kivi")->effective_bits(shape, 1 << 24) - 3.0) < 1e-3);
    QVERIFY(std::abs(method("kivi:g=128")->effective_bits(shape, 1 << 24) - 2.25) < 1e-3);
    QVERIFY(std::abs(method("kivi:bits=4")->effective_bits(shape, 1 << 24) - 5.0) < 1e-3);
    QCOMPARE(method("kivi")->effective_bits(shape, 100), 16.0);
  }

  void notANumberIsRefusedByHeadAndToken() {
    at::Tensor x = at::zeros({3, 64, 64});
    x[2][17][5] = std::numeric_limits<float>::quiet_NaN();
    const QString message = message_of([&] { method("kivi")->quantize(x, KvRole::Key, {}); });
    QVERIFY2(message.contains("key of head 2, token 17") && message.contains("not a number"), qPrintable(message));
    const auto cache = method("kivi")->make_cache({.heads = 3, .kv_heads = 3, .head_dim = 64});
    x[2][17][5] = std::numeric_limits<float>::infinity();
    const QString prompt = message_of([&] { cache->prefill(at::zeros_like(x), x); });
    QVERIFY2(prompt.contains("value of head 2, token 17") && prompt.contains("infinite"), qPrintable(prompt));
  }

  void aHeadThatDoesNotFitNamesTheNearestGroup() {
    const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 48};
    const QString message = message_of([&] { method("kivi:g=32")->check_fits(shape); });
    QVERIFY2(message.contains("head_dim = 48") && message.contains("nearest that fits is 24"), qPrintable(message));
    const QString none = message_of([&] { method("kivi")->make_cache({.heads = 8, .kv_heads = 4, .head_dim = 8}); });
    QVERIFY2(none.contains("another method"), qPrintable(none));
  }

  void valuesBeyondHalfPrecisionAreRefusedNotTurnedToInfinity() {
    const at::Tensor x = at::linspace(-2e5, 2e5, 64 * 64).view({1, 64, 64});
    const QString message = message_of([&] { method("kivi")->quantize(x, KvRole::Key, {}); });
    QVERIFY2(message.contains("store=f32"), qPrintable(message));
    QVERIFY(at::isfinite(method("kivi:store=f32")->quantize(x, KvRole::Key, {}).values).all().item<bool>());
  }

  void wrongShapesAreRefused() {
    const auto cache = method("kivi")->make_cache({.heads = 4, .kv_heads = 2, .head_dim = 64});
    QVERIFY(message_of([&] { cache->prefill(at::zeros({2, 5, 64}), at::zeros({2, 4, 64})); }).contains("value"));
    cache->prefill(at::zeros({2, 5, 64}), at::zeros({2, 5, 64}));
    QVERIFY(message_of([&] {
              cache->prefill(at::zeros({2, 5, 64}), at::zeros({2, 5, 64}));
            }).contains("holds 5 tokens"));
    QVERIFY(message_of([&] {
              cache->append_and_attend(at::zeros({2, 64}), at::zeros({2, 64}), at::zeros({2, 64}));
            }).contains("query"));
  }

  void theReportCountsOnTheCodes() {
    at::Tensor x = at::arange(0, 4).to(at::kFloat).repeat({16}).view({1, 64, 1}).expand({1, 64, 32}).contiguous();
    x = at::cat({x, at::full({1, 3, 32}, 0.25)}, 1);
    const TensorReport report = report_tensor("key", x, method("kivi")->quantize(x, KvRole::Key, {}));
    QCOMPARE(report.levels, std::int64_t{4});
    QCOMPARE(report.levels_used, std::int64_t{4});
    QCOMPARE(report.saturated_fraction, 0.5);
    QCOMPARE(report.changed_fraction, 0.0);
    QCOMPARE(report.tokens_full_precision, std::int64_t{3});
    QCOMPARE(report.warnings.size(), std::size_t{1});
  }
};

QTEST_APPLESS_MAIN(TestKivi)
#include "tst_kivi.moc"
