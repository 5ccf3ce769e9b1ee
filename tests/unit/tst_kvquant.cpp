#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <QtTest>
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <stop_token>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/kv_gradients.h"
#include "backend/methods/kvquant.h"
#include "backend/methods/kvquant_fit.h"
#include "backend/methods/nuq.h"
#include "backend/model/decoder.h"
#include "backend/model/model.h"
#include "backend/types/error.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

template <typename T>
T pick(std::mt19937_64& generator, std::initializer_list<T> values) {
  return values.begin()[generator() % values.size()];
}

/// Keys whose channels have ranges, offsets and rare large values of their own; values with rare large ones.
at::Tensor skewed(std::mt19937_64& generator, at::IntArrayRef shape) {
  at::Tensor x = test::random_kv(generator, shape, 5.0);
  const at::Tensor offset = test::random_kv(generator, {shape[0], 1, shape[2]}) * 2.0;
  const at::Tensor rare = test::random_kv(generator, shape).abs() > 2.6;
  return at::where(rare, x * 6.0, x) + offset;
}

struct Trial {
  Setup setup;
  CacheShape shape;
  std::int64_t prompt = 0, steps = 0;
  std::unique_ptr<KvMethod> method;
  const Kvquant& kvquant() const { return static_cast<const Kvquant&>(*method); }
  std::string text() const {
    return format_setup(setup, kv_method_infos()) + " heads " + std::to_string(shape.heads) + "/" +
           std::to_string(shape.kv_heads) + " x " + std::to_string(shape.head_dim) + ", prompt " +
           std::to_string(prompt) + ", steps " + std::to_string(steps);
  }
};

Trial random_trial(std::mt19937_64& generator) {
  Trial trial;
  trial.shape.kv_heads = 1 + static_cast<std::int64_t>(generator() % 3);
  trial.shape.heads = trial.shape.kv_heads * pick<std::int64_t>(generator, {1, 2, 4, 5});
  trial.shape.head_dim = pick<std::int64_t>(generator, {8, 16, 24, 32, 64, 96, 128});
  trial.shape.rope.theta = pick(generator, {10000.0, 500000.0});
  trial.setup = parse_kv_setup("kvquant:" + pick<std::string>(generator, {"nuq", "nuq", "nuq", "nf", "int"}) + "=" +
                               std::to_string(pick(generator, {2, 3, 4, 5})) +
                               ",outliers=" + pick<std::string>(generator, {"0", "0.01", "0.01", "0.03", "0.05"}) +
                               ",sink=" + std::to_string(pick(generator, {-1, 0, 1, 5, 64})))
                    .value();
  if (std::get<double>(trial.setup.params.at("outliers")) > 0.0)
    trial.setup.params["cap_per_side"] = pick(generator, {0, 0, -1, 1, 3});
  if (generator() % 5 == 0) trial.setup.params["store"] = std::string("f32");
  trial.prompt = pick<std::int64_t>(generator, {0, 1, 4, 63, 64, 100, 129, 400});
  trial.steps = pick<std::int64_t>(generator, {1, 5, 40, 130});
  const at::Tensor sample = skewed(generator, {trial.shape.kv_heads, 200, trial.shape.head_dim});
  trial.method =
      make_kv_method_for(trial.setup, {.query = {}, .key = sample, .value = sample.flip({1}), .shape = trial.shape}, 1);
  return trial;
}

Setup setup_of(const std::string& text) { return parse_kv_setup(text).value(); }

std::unique_ptr<KvMethod> calibrated(const std::string& setup, const at::Tensor& key, const at::Tensor& value) {
  return make_kv_method_for(setup_of(setup), {.query = {}, .key = key, .value = value, .shape = {}}, 1);
}

at::Tensor floats(std::initializer_list<double> values) {
  return at::tensor(std::vector<double>(values), at::kDouble).to(at::kFloat);
}

/// Four levels at -1, -0.5, 0.5, 1 and thresholds of -2 and 2 in `channels` channels.
KvLayerArtifact hand_made(std::int64_t channels) {
  return {{"key_lower", at::full({channels}, -2.0)},
          {"key_upper", at::full({channels}, 2.0)},
          {"key_levels", floats({-1, -0.5, 0.5, 1})},
          {"value_levels", floats({-1, -0.5, 0.5, 1})}};
}

/// What rounding of f32 sums may do to an attention output: it moves scores by their size, and those move values.
double attention_tolerance(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const at::Tensor shared = query.view({key.size(0), -1, key.size(2)}).abs();
  const double size = at::matmul(shared, key.abs().transpose(1, 2)).max().item<double>();
  return 2e-6 * (1.0 + size / std::sqrt(static_cast<double>(key.size(2)))) * value.abs().max().item<double>();
}

/// Full-precision attention that moves the keys or values of one layer along a direction.
class Nudge final : public AttentionProvider {
 public:
  std::int64_t layer = 0;
  KvRole role = KvRole::Key;
  RopeSpec rope;
  at::Tensor direction;
  double step = 0.0;

  at::Tensor attend(const AttentionCall& call) override {
    AttentionCall moved = call;
    if (call.layer == layer && role == KvRole::Value) moved.value = call.value + direction * step;
    if (call.layer == layer && role == KvRole::Key)
      moved.key = apply_rope(call.key_pre_rope + direction * step, 0, rope);
    return window_.attend(moved);
  }

 private:
  FullPrecisionWindow window_;
};

double share_of(const QuantizedTensor& quantized, const TokenRange& range) {
  if (range.size() == 0) return 0.0;
  return quantized.full_precision.narrow(1, range.begin, range.size()).to(at::kDouble).mean().item<double>();
}

}  // namespace

class TestKvquant : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void initTestCase() { at::set_num_threads(1); }  // the tensors are too small to share

  void packedEqualsReferenceWhilePromptAndDecodingGoOn_data() {
    QTest::addColumn<int>("seed");
    for (int seed = 0; seed < 60; ++seed) QTest::addRow("%d", seed) << seed;
  }
  void packedEqualsReferenceWhilePromptAndDecodingGoOn() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed));
    const Trial trial = random_trial(generator);
    const auto cache = trial.method->make_cache(trial.shape);
    const std::int64_t total = trial.prompt + trial.steps;
    const at::Tensor key = skewed(generator, {trial.shape.kv_heads, total, trial.shape.head_dim});
    const at::Tensor value = skewed(generator, {trial.shape.kv_heads, total, trial.shape.head_dim});
    cache->prefill(key.narrow(1, 0, trial.prompt), value.narrow(1, 0, trial.prompt));
    const at::Tensor seen_keys = as_cached(*trial.method, key, KvRole::Key, {});
    const at::Tensor seen_values = as_cached(*trial.method, value, KvRole::Value, {});
    for (std::int64_t token = trial.prompt; token < total; ++token) {
      const at::Tensor query = test::random_kv(generator, {trial.shape.heads, trial.shape.head_dim}) * 0.1;
      const at::Tensor out = cache->append_and_attend(query, key.select(1, token), value.select(1, token));
      if (token % 9 != 0 && token + 1 != total) continue;
      const at::Tensor expected =
          test::brute_force_attention(query, apply_rope(seen_keys.narrow(1, 0, token + 1), 0, trial.shape.rope),
                                      seen_values.narrow(1, 0, token + 1));
      const double error = test::largest_difference(out, expected);
      const double tolerance =
          attention_tolerance(query, seen_keys.narrow(1, 0, token + 1), seen_values.narrow(1, 0, token + 1));
      QVERIFY2(error <= tolerance, (trial.text() + ": off by " + std::to_string(error)).c_str());
    }
    const auto [keys, values] = cache->materialize();
    QVERIFY2(keys.equal(seen_keys), trial.text().c_str());
    QVERIFY2(values.equal(seen_values), trial.text().c_str());
  }

  void allocatedBytesEqualTheFormulaWithTheMeasuredShare_data() {
    packedEqualsReferenceWhilePromptAndDecodingGoOn_data();
  }
  void allocatedBytesEqualTheFormulaWithTheMeasuredShare() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed) + 1000);
    const Trial trial = random_trial(generator);
    const auto cache = trial.method->make_cache(trial.shape);
    const at::Tensor key = skewed(generator, {trial.shape.kv_heads, trial.prompt + 3, trial.shape.head_dim});
    const at::Tensor value = skewed(generator, {trial.shape.kv_heads, trial.prompt + 3, trial.shape.head_dim});
    cache->prefill(key.narrow(1, 0, trial.prompt), value.narrow(1, 0, trial.prompt));
    for (std::int64_t tokens = trial.prompt + 1; tokens <= trial.prompt + 3; ++tokens) {
      cache->append_and_attend(at::zeros({trial.shape.heads, trial.shape.head_dim}), key.select(1, tokens - 1),
                               value.select(1, tokens - 1));
      double expected = 0.0;
      for (const KvRole role : {KvRole::Key, KvRole::Value}) {
        const at::Tensor x = (role == KvRole::Key ? key : value).narrow(1, 0, tokens);
        const double share = share_of(trial.method->quantize(x, role, {}), trial.method->after_prefill(role, tokens));
        expected += trial.kvquant().role_bits(role, trial.shape.kv_heads * trial.shape.head_dim, tokens, share) / 2.0;
      }
      const CacheStats stats = cache->stats();
      QVERIFY2(std::fabs(stats.effective_bits() - expected) < 1e-9,
               (trial.text() + ": " + std::to_string(stats.effective_bits()) + " against " + std::to_string(expected))
                   .c_str());
      QCOMPARE(stats.tokens_full_precision, tokens - trial.method->after_prefill(KvRole::Key, tokens).size());
      QVERIFY(stats.bytes_constants > 0);
      QCOMPARE(cache->quantized(KvRole::Value).size(), trial.method->after_prefill(KvRole::Value, tokens).size());
    }
  }

  void thePublishedCountIsThePapers() {
    QVERIFY(std::fabs(kvquant_published_bits(KvRole::Key, 3, 0.01, 4096, 131072) - 3.328056640625) < 1e-12);
    QVERIFY(std::fabs(kvquant_published_bits(KvRole::Value, 3, 0.01, 4096, 131072) - 3.335625) < 1e-12);
  }

  void effectiveBitsForeseeTheCacheWithinOnePercent() {
    std::mt19937_64 generator(4);
    const CacheShape shape{.heads = 4, .kv_heads = 4, .head_dim = 64};
    const at::Tensor key = skewed(generator, {4, 4096, 64}), value = test::random_kv(generator, {4, 4096, 64});
    const auto method = calibrated("kvquant:nuq=3", key, value);
    const auto cache = method->make_cache(shape);
    cache->prefill(key, value);
    const double foreseen = method->effective_bits(shape, 4096);
    QVERIFY(std::fabs(cache->stats().effective_bits() / foreseen - 1.0) < 0.01);
  }

  void aPromptMayBeSplitAnywhere() {
    std::mt19937_64 generator(5);
    for (const char* setup : {"kvquant:nuq=3", "kvquant:nuq=2,sink=64,cap=auto", "kvquant:int=4,outliers=0.05,sink=0",
                              "kvquant:nf=5,outliers=0"}) {
      const at::Tensor key = skewed(generator, {2, 1200, 32}), value = skewed(generator, {2, 1200, 32});
      const auto method = calibrated(setup, key.narrow(1, 0, 300), value.narrow(1, 0, 300));
      const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 32};
      const auto whole = method->make_cache(shape);
      whole->prefill(key, value);
      for (const std::int64_t split : {0, 1, 63, 64, 65, 1023, 1025, 1199}) {
        const auto cache = method->make_cache(shape);
        cache->prefill(key.narrow(1, 0, split), value.narrow(1, 0, split));
        for (std::int64_t t = split; t < 1200; ++t)
          cache->append_and_attend(at::zeros({4, 32}), key.select(1, t), value.select(1, t));
        QVERIFY2(cache->materialize().first.equal(whole->materialize().first), setup);
        QVERIFY2(cache->materialize().second.equal(whole->materialize().second), setup);
        QCOMPARE(cache->stats().bytes(), whole->stats().bytes());
      }
    }
  }

  void aLongCacheSharedByThreadsGivesTheSameAttention() {
    std::mt19937_64 generator(8);
    CacheShape shape{.heads = 8, .kv_heads = 4, .head_dim = 64};
    const at::Tensor key = skewed(generator, {4, 5001, 64}), value = skewed(generator, {4, 5001, 64});
    const auto method = calibrated("kvquant:nuq=3,sink=3", key, value);
    for (const std::int64_t window : {0, 700, 5000}) {
      shape.sliding_window = window;
      at::set_num_threads(2);
      const auto cache = method->make_cache(shape);
      cache->prefill(key.narrow(1, 0, 5000), value.narrow(1, 0, 5000));
      const at::Tensor query = test::random_kv(generator, {8, 64}) * 0.1;
      const at::Tensor out = cache->append_and_attend(query, key.select(1, 5000), value.select(1, 5000));
      at::set_num_threads(1);
      const std::int64_t first = window > 0 ? 5001 - window : 0;
      const at::Tensor keys = apply_rope(as_cached(*method, key, KvRole::Key, {}), 0, shape.rope);
      const at::Tensor values = as_cached(*method, value, KvRole::Value, {});
      const at::Tensor expected = test::brute_force_attention(query, keys.narrow(1, first, 5001 - first),
                                                              values.narrow(1, first, 5001 - first));
      QVERIFY(test::largest_difference(out, expected) < attention_tolerance(query, keys, values));
    }
  }

  void keysFollowTheirThresholdsAndLevels() {
    const KvLayerArtifact artifact = hand_made(8);
    const Setup setup = setup_of("kvquant:nuq=2,sink=0,qnorm=off");
    const Kvquant method(setup.params, &artifact);
    // h = 2: the levels decode to -2, -1, 1, 2. 0 lies between two of them: the smaller code. 2.5 is an outlier.
    const at::Tensor x = floats({-2, -1.5, -0.2, 0, 0.2, 1.6, 2, 2.5}).view({1, 1, 8});
    const QuantizedTensor result = method.quantize(x, KvRole::Key, {});
    QVERIFY(result.values.equal(
        floats({-2, -2, -1, -1, 1, 2, 2, 2.5}).view({1, 1, 8})));  // -1.5 and 1.6: a tie and the nearer one
    QCOMPARE(result.full_precision.sum().item<std::int64_t>(), std::int64_t{1});
    QCOMPARE(result.codes.view({-1})[7].item<int>(), 255);
  }

  void qNormMovesTheLevels() {
    KvLayerArtifact artifact = hand_made(8);
    artifact["key_norm"] = floats({2.0, 0.25});
    const Kvquant method(setup_of("kvquant:nuq=2,sink=0,qnorm").params, &artifact);
    const at::Tensor values = method.quantize(at::full({1, 1, 8}, 1.0), KvRole::Key, {}).values;
    QVERIFY(values.equal(at::full({1, 1, 8}, (0.5 * 2.0 + 0.25) * 2.0)));
  }

  void valuesKeepTheirExtremesAndTheMedianBoundsTheRest() {
    const KvLayerArtifact artifact = hand_made(8);
    const Kvquant method(setup_of("kvquant:nuq=2,sink=0,qnorm=off,store=f32").params, &artifact);
    // Both extremes are outliers; the lower median is 1, so the rest spans -1 .. 3: middle 1, half 2.
    const at::Tensor x = floats({100, 3, 1, 0.5, -1, 2, 1, -50}).view({1, 1, 8});
    const QuantizedTensor result = method.quantize(x, KvRole::Value, {});
    QVERIFY(result.values.equal(floats({100, 3, 0, 0, -1, 2, 0, -50}).view({1, 1, 8})));
    QCOMPARE(result.scale.item<float>(), 2.0f);
    QCOMPARE(result.group_min.item<float>(), 1.0f);
  }

  void equalStepsRoundToTheNearestCode() {
    const KvLayerArtifact artifact = hand_made(8);
    const at::Tensor x = floats({3, 4, 5, 6, 7, 8, 9, 9}).view({1, 1, 8});
    const Kvquant method(setup_of("kvquant:int=2,sink=0,outliers=0,store=f32").params, &artifact);
    QVERIFY(method.quantize(x, KvRole::Value, {}).values.equal(floats({3, 3, 5, 7, 7, 7, 9, 9}).view({1, 1, 8})));
    // The offset 3 / 2 = 1.5 rounds to 2 and is clamped to 0: codes begin at 0, so 7 and more share the last one.
    const Kvquant whole(setup_of("kvquant:int=2,sink=0,outliers=0,store=f32,integer_zero=true").params, &artifact);
    QVERIFY(whole.quantize(x, KvRole::Value, {}).values.equal(floats({4, 4, 4, 6, 6, 6, 6, 6}).view({1, 1, 8})));
  }

  void theFirstTokensOfTheSequenceAreExactAndGeneratedOnesAreNot() {
    std::mt19937_64 generator(11);
    const at::Tensor key = skewed(generator, {2, 40, 32}), value = skewed(generator, {2, 40, 32});
    const auto method = calibrated("kvquant:nuq=2,outliers=0,sink=5", key, value);
    const auto cache = method->make_cache({.heads = 2, .kv_heads = 2, .head_dim = 32});
    cache->prefill(key.narrow(1, 0, 3), value.narrow(1, 0, 3));
    for (std::int64_t t = 3; t < 40; ++t)
      cache->append_and_attend(at::zeros({2, 32}), key.select(1, t), value.select(1, t));
    const at::Tensor seen = cache->materialize().first, held = key.to(at::kHalf).to(at::kFloat);
    QVERIFY(seen.narrow(1, 0, 5).equal(held.narrow(1, 0, 5)));
    for (std::int64_t t = 5; t < 40; ++t) QVERIFY(!seen.select(1, t).equal(held.select(1, t)));
    QCOMPARE(cache->stats().tokens_full_precision, std::int64_t{5});
  }

  void tiesDoNotMakeAWholeVectorSparse() {
    const KvLayerArtifact artifact = hand_made(256);
    const Kvquant method(setup_of("kvquant:nuq=2,sink=0").params, &artifact);
    for (const double constant : {0.0, -3.5, 1e-7}) {
      const QuantizedTensor result = method.quantize(at::full({1, 3, 256}, constant), KvRole::Value, {});
      QVERIFY(result.values.equal(at::full({1, 3, 256}, constant).to(at::kHalf).to(at::kFloat)));
      QCOMPARE(result.full_precision.sum().item<std::int64_t>(), std::int64_t{3 * 5});  // ceil(2.56) + 2, both sides
    }
    at::Tensor two = at::full({1, 1, 256}, 1.0);
    two.narrow(2, 0, 128).fill_(-1.0);
    const QuantizedTensor result = method.quantize(two, KvRole::Value, {});
    QCOMPARE(result.full_precision.sum().item<std::int64_t>(), std::int64_t{2 * 5});
    QVERIFY(result.values.equal(two));
  }

  void aCapKeepsTheStrongestOutliersOfAToken() {
    KvLayerArtifact artifact = hand_made(8);
    artifact["key_upper"] = floats({2, 2, 2, 2, 20, 2, 2, 2});
    const at::Tensor x = floats({3, 5, 4, 0, 30, -9, -3, -5}).view({1, 1, 8});
    const Kvquant method(setup_of("kvquant:nuq=2,sink=0,cap=2,qnorm=off").params, &artifact);
    const QuantizedTensor result = method.quantize(x, KvRole::Key, {});
    // By y = (x - middle) / half: 5 and 4 above (30 in its wide channel is 1.9), -9 and -5 below.
    QVERIFY(result.full_precision.view({-1}).equal(
        at::tensor(std::vector<std::int64_t>{0, 1, 1, 0, 0, 1, 0, 1}, at::kLong).to(at::kBool)));
    QCOMPARE(result.values.view({-1})[0].item<float>(), 2.0f);  // the dropped one is clamped
  }

  void constantZeroAndSingleTokenInputsStayFinite() {
    for (const char* setup :
         {"kvquant:nuq=4", "kvquant:nuq=2,outliers=0", "kvquant:int=3,outliers=0.02", "kvquant:nf=3"}) {
      for (const double constant : {0.0, -2.5, 1e-7}) {
        for (const std::int64_t tokens : {1, 40, 300}) {
          const at::Tensor x = at::full({2, tokens, 32}, constant);
          const auto method = calibrated(setup, x, x);
          const auto cache = method->make_cache({.heads = 2, .kv_heads = 2, .head_dim = 32});
          cache->prefill(x, x);
          const at::Tensor out = cache->append_and_attend(at::ones({2, 32}), x.select(1, 0), x.select(1, 0));
          QVERIFY2(
              at::isfinite(out).all().item<bool>() && test::largest_difference(out, at::full({2, 32}, constant)) < 2e-5,
              setup);
        }
      }
    }
  }

  void aNanNamesItsPlace() {
    std::mt19937_64 generator(3);
    const at::Tensor x = skewed(generator, {2, 20, 32});
    const auto method = calibrated("kvquant", x, x);
    at::Tensor broken = x.clone();
    broken[1][7][3] = std::numeric_limits<double>::quiet_NaN();
    const auto refuses = [](const auto& act) {
      try {
        act();
      } catch (const Error& error) {
        const std::string what = error.what();
        return what.find("head 1") != std::string::npos && what.find("token 7") != std::string::npos;
      }
      return false;
    };
    QVERIFY(refuses([&] { method->quantize(broken, KvRole::Value, {}); }));
    const auto cache = method->make_cache({.heads = 2, .kv_heads = 2, .head_dim = 32});
    QVERIFY(refuses([&] { cache->prefill(broken, x); }));
    QVERIFY_EXCEPTION_THROWN(calibrated("kvquant", broken, x), Error);
  }

  void whatIsNotCalibratedSaysHowTo() {
    const auto method = make_kv_method(setup_of("kvquant:nuq=3"));
    QCOMPARE(method->effective_bits({.heads = 32, .kv_heads = 32, .head_dim = 128}, 1000) > 3.3, true);
    try {
      method->make_cache({.heads = 2, .kv_heads = 2, .head_dim = 32});
      QFAIL("an uncalibrated cache was made");
    } catch (const Error& error) {
      QVERIFY(std::string(error.what()).find("calibrate") != std::string::npos);
    }
    QVERIFY_EXCEPTION_THROWN(method->quantize(at::ones({1, 2, 8}), KvRole::Value, {}), Error);
  }

  void aCalibrationOfAnotherModelOrSetupIsRefused() {
    std::mt19937_64 generator(13);
    const at::Tensor x = skewed(generator, {2, 50, 32});
    const Setup setup = setup_of("kvquant:nuq=3");
    const KvLayerArtifact layer =
        calibrate_kvquant_layer({.query = {}, .key = x, .value = x, .shape = {}}, setup.params, 0);
    const Kvquant method(setup.params, &layer);
    QVERIFY_EXCEPTION_THROWN(method.make_cache({.heads = 4, .kv_heads = 4, .head_dim = 32}), Error);
    QVERIFY_EXCEPTION_THROWN(Kvquant(setup_of("kvquant:nuq=4").params, &layer), Error);
    QVERIFY_EXCEPTION_THROWN(Kvquant(setup_of("kvquant:nuq=3,outliers=0.02").params, &layer), Error);
    KvLayerArtifact broken = layer;
    broken["key_levels"] = broken["key_levels"].flip({0});
    QVERIFY_EXCEPTION_THROWN(Kvquant(setup.params, &broken), Error);
    broken = layer;
    broken["key_upper"] = broken["key_lower"] - 1.0;
    QVERIFY_EXCEPTION_THROWN(Kvquant(setup.params, &broken), Error);
    KvArtifact artifact;
    artifact.method = "kvquant";
    artifact.setup = format_setup(setup, kv_method_infos());
    artifact.layers = {layer};
    QVERIFY(make_kv_plan(setup, 1, &artifact) != nullptr);
    QVERIFY(make_kv_plan(setup_of("kvquant:nuq=3,sink=4,cap=auto"), 1, &artifact) != nullptr);
    for (const char* other : {"kvquant:nuq=4", "kvquant:nuq=3,outliers=0", "kvquant:nuq=3,fisher_scale=false"})
      QVERIFY_EXCEPTION_THROWN(make_kv_plan(setup_of(other), 1, &artifact), Error);
    QVERIFY_EXCEPTION_THROWN(make_kv_plan(setup, 2, &artifact), Error);
  }

  void spellingsOfTheSpecificationMeanTheSame() {
    const Setup setup = setup_of("kvquant:nuq=3,outliers=0.01,sink=1,qnorm,cap=21");
    QCOMPARE(format_setup(setup, kv_method_infos()), std::string("kvquant:bits=3,q_norm=on,cap_per_side=21"));
    QCOMPARE(format_setup(setup_of("kvquant:nf=2,cap=auto"), kv_method_infos()),
             std::string("kvquant:bits=2,datatype=nf,cap_per_side=-1"));
    for (const char* wrong : {"kvquant:nuq=6", "kvquant:outliers=0.06", "kvquant:sink=65", "kvquant:int=3,qnorm",
                              "kvquant:integer_zero=true", "kvquant:outliers=0,cap=3", "kvquant:nuq=3,bits=3"})
      QVERIFY_EXCEPTION_THROWN(setup_of(wrong), Error);
  }

  void normalFloatLevelsSpanBothHalves() {
    for (const int bits : {2, 3, 4, 5}) {
      const std::vector<double> levels = normal_float_levels(bits);
      QCOMPARE(levels.size(), std::size_t{1} << bits);
      QVERIFY(std::is_sorted(levels.begin(), levels.end()));
      QVERIFY(std::fabs(levels.front() + 1.0) < 1e-12 && std::fabs(levels.back() - 1.0) < 1e-12);
      QCOMPARE(std::count(levels.begin(), levels.end(), 0.0), std::ptrdiff_t{1});
    }
  }

  void kMeansFindsTheBestPartition() {
    std::mt19937_64 generator(21);
    std::uniform_real_distribution<double> uniform(-1.0, 1.0);
    for (int round = 0; round < 30; ++round) {
      std::vector<double> points(9), weights(9);
      for (double& p : points) p = round % 3 == 0 ? std::round(4.0 * uniform(generator)) : uniform(generator);
      for (double& w : weights) w = round % 4 == 0 ? 1.0 : std::max(0.0, uniform(generator));
      weights[0] = 1.0;
      const Clusters found = weighted_kmeans(places_of(points, weights), 3);
      // Every way to cut the sorted points into at most three runs.
      std::vector<std::size_t> order(points.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return points[a] < points[b]; });
      const auto run_cost = [&](std::size_t begin, std::size_t end) {
        double weight = 0.0, sum = 0.0, cost = 0.0;
        for (std::size_t i = begin; i < end; ++i) {
          weight += weights[order[i]];
          sum += weights[order[i]] * points[order[i]];
        }
        for (std::size_t i = begin; i < end && weight > 0.0; ++i)
          cost += weights[order[i]] * std::pow(points[order[i]] - sum / weight, 2);
        return cost;
      };
      double best = std::numeric_limits<double>::infinity();
      for (std::size_t a = 0; a <= points.size(); ++a) {
        for (std::size_t b = a; b <= points.size(); ++b)
          best = std::min(best, run_cost(0, a) + run_cost(a, b) + run_cost(b, points.size()));
      }
      QVERIFY(std::fabs(found.objective - best) < 1e-9);
      QVERIFY(std::is_sorted(found.centroids.begin(), found.centroids.end()));
    }
    const std::vector<double> two = {3.0, -1.0}, ones = {1.0, 1.0};
    QCOMPARE(weighted_kmeans(places_of(two, ones), 4).centroids, (std::vector<double>{-1.0, 3.0, 3.0, 3.0}));
    const std::vector<double> nan = {std::numeric_limits<double>::quiet_NaN()}, one = {1.0};
    QVERIFY_EXCEPTION_THROWN(places_of(nan, one), Error);
  }

  void thresholdsAreThePercentilesOfAllTokens() {
    std::mt19937_64 generator(22);
    for (const double fraction : {1.0, 0.9995, 0.995, 0.975}) {
      for (const std::int64_t tokens : {1, 2, 37, 400}) {
        const at::Tensor x = test::random_kv(generator, {tokens, 6}).to(at::kHalf).to(at::kFloat);
        KeyTails tails(tokens, fraction);
        for (std::int64_t begin = 0; begin < tokens; begin += 30)
          tails.add(x.narrow(0, begin, std::min<std::int64_t>(30, tokens - begin)));
        for (std::int64_t channel = 0; channel < 6; ++channel) {
          const at::Tensor column = std::get<0>(at::sort(x.select(1, channel).to(at::kDouble).contiguous()));
          const std::span<const double> sorted(column.data_ptr<double>(), static_cast<std::size_t>(tokens));
          const auto half = [](double v) { return at::full({1}, v, at::kDouble).to(at::kHalf).item<double>(); };
          QCOMPARE(tails.upper()[channel].item<double>(), half(percentile_of_sorted(sorted, fraction)));
          QCOMPARE(tails.lower()[channel].item<double>(), half(percentile_of_sorted(sorted, 1.0 - fraction)));
        }
      }
    }
  }

  void fittedLevelsBeatTheFixedOnesAndFollowTheGradients() {
    std::mt19937_64 generator(23);
    const at::Tensor key = skewed(generator, {2, 600, 32}), value = test::random_kv(generator, {2, 600, 32}).pow(3);
    const auto error = [&](const char* setup) {
      const auto method = calibrated(setup, key, value);
      const at::Tensor seen = method->quantize(value, KvRole::Value, {}).values;
      return (seen - value).pow(2).sum().item<double>();
    };
    QVERIFY(error("kvquant:nuq=3") < error("kvquant:nf=3"));
    QVERIFY(error("kvquant:nuq=3") < error("kvquant:int=3"));

    // Only positive elements matter to the loss: no level is spent on the others.
    const KvquantSettings settings = KvquantSettings::from(setup_of("kvquant:nuq=2,outliers=0,sink=0").params);
    LayerCalibration layer(600, settings);
    layer.add_keys(key);
    layer.fix_thresholds();
    layer.fit(key, value, at::ones_like(key), (value > 0.0).to(at::kFloat));
    const at::Tensor levels = layer.artifact().at("value_levels");
    layer = LayerCalibration(600, settings);
    layer.add_keys(key);
    layer.fix_thresholds();
    layer.fit(key, value, {}, {});
    QVERIFY(levels[0].item<float>() > layer.artifact().at("value_levels")[0].item<float>() + 0.1f);
  }

  void qNormRestoresMeanAndDeviation() {
    std::mt19937_64 generator(24);
    const at::Tensor x = test::random_kv(generator, {1, 400, 64});
    const KvquantSettings settings = KvquantSettings::from(setup_of("kvquant:nuq=2,outliers=0,sink=0").params);
    LevelFit fit;
    const TokenMatrix m = value_matrix(calibration_matrix(x), settings);
    fit.add(m, {}, settings);
    const std::vector<double> levels = {-0.7, -0.1, 0.2, 0.6};
    const at::Tensor norm = fit.norm(levels).to(at::kDouble), y = m.normalised().to(at::kDouble).view({-1});
    const at::Tensor table = at::tensor(levels, at::kDouble);
    const at::Tensor nearest = table.index_select(0, (y.unsqueeze(1) - table).abs().argmin(1));
    const at::Tensor restored = nearest * norm[0] + norm[1];
    QVERIFY(std::fabs((restored.mean() - y.mean()).item<double>()) < 2e-3);
    QVERIFY(std::fabs((restored.std() - y.std()).item<double>()) < 2e-3);
  }

  void gradientsAreThoseOfTheLoss() {
    const auto model = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, {});
    const ArchitectureSpec& spec = model->spec();
    const std::vector<std::int64_t> ids = {1, 403, 407, 261, 378, 300, 317, 280, 362, 290, 411, 266};
    const std::vector<ProjectionGradients> gradients = projection_gradients(*model, ids, {});
    QCOMPARE(static_cast<std::int64_t>(gradients.size()), spec.layers);
    const auto loss = [&](Nudge nudge) {
      const at::Tensor logits =
          forward(spec, model->weights(), RaggedBatch::single(ids), nudge, LogitRows::All, nullptr, {});
      const at::Tensor p = at::log_softmax(logits.to(at::kDouble).narrow(0, 0, 11), 1);
      return -p.gather(1, at::tensor(ids, at::kLong).narrow(0, 1, 11).unsqueeze(1)).sum().item<double>();
    };
    std::mt19937_64 generator(31);
    for (int probe = 0; probe < 12; ++probe) {
      Nudge nudge;
      nudge.layer = static_cast<std::int64_t>(generator() % static_cast<std::uint64_t>(spec.layers));
      nudge.role = probe % 2 ? KvRole::Key : KvRole::Value;
      nudge.rope = spec.rope_of(nudge.layer);
      const at::Tensor& gradient =
          nudge.role == KvRole::Key ? gradients[nudge.layer].key_gradient : gradients[nudge.layer].value_gradient;
      const at::Tensor random = test::random_kv(generator, gradient.sizes());
      nudge.direction = gradient / gradient.norm() + random / random.norm();
      const double expected = (gradient * nudge.direction).sum().item<double>();
      nudge.step = 0.02;
      const double up = loss(nudge);
      nudge.step = -0.02;
      const double slope = (up - loss(nudge)) / 0.04;
      QVERIFY2(std::fabs(slope - expected) < 0.02 * gradient.norm().item<double>() + 5e-3,
               qPrintable(QString("%1 against %2").arg(slope).arg(expected)));
    }
  }

  void aCalibrationIsRepeatableAndCanBeCancelled() {
    const auto model = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, {});
    const Setup setup = setup_of("kvquant:nuq=3");
    KvCalibrationInput input{*model, {}, 0};
    for (std::int64_t first = 0; first < 3; ++first) {
      input.windows.emplace_back();
      for (std::int64_t i = 0; i < 40; ++i) input.windows.back().push_back((7 + 13 * first + 29 * i) % 500 + 3);
    }
    const std::vector<KvLayerArtifact> once = calibrate_kvquant(input, setup.params, {}),
                                       again = calibrate_kvquant(input, setup.params, {});
    QCOMPARE(static_cast<std::int64_t>(once.size()), model->spec().layers);
    for (std::size_t layer = 0; layer < once.size(); ++layer) {
      for (const auto& [name, tensor] : once[layer]) QVERIFY2(tensor.equal(again[layer].at(name)), name.c_str());
      QCOMPARE(once[layer].at("key_levels").numel(), std::int64_t{8});
    }
    const Setup as_code = setup_of("kvquant:nuq=3,fisher_scale=false");
    QVERIFY(!calibrate_kvquant(input, as_code.params, {})[0].at("key_levels").equal(once[0].at("key_levels")));
    for (const double until : {0.0, 0.1, 0.4, 0.6, 0.99}) {
      std::stop_source stop;
      const JobContext job(stop.get_token(), [&](double fraction, std::string_view) {
        if (fraction >= until) stop.request_stop();
      });
      QVERIFY_EXCEPTION_THROWN(calibrate_kvquant(input, setup.params, job), Cancelled);
    }
  }
};

QTEST_APPLESS_MAIN(TestKvquant)
#include "tst_kvquant.moc"
