#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <QtTest>
#include <cmath>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/kv_store.h"
#include "backend/types/error.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

struct Trial {
  Setup setup;
  CacheShape shape;
  std::int64_t prompt = 0, steps = 0;
  bool half_arithmetic = false;
  std::string text() const {
    return format_setup(setup, kv_method_infos()) + " heads " + std::to_string(shape.heads) + "/" +
           std::to_string(shape.kv_heads) + " x " + std::to_string(shape.head_dim) + ", prompt " +
           std::to_string(prompt) + ", steps " + std::to_string(steps);
  }
};

template <typename T>
T pick(std::mt19937_64& generator, std::initializer_list<T> values) {
  return values.begin()[generator() % values.size()];
}

Trial random_trial(std::mt19937_64& generator) {
  Trial trial;
  trial.shape.kv_heads = 1 + static_cast<std::int64_t>(generator() % 3);
  trial.shape.heads = trial.shape.kv_heads * pick<std::int64_t>(generator, {1, 2, 3, 5});
  std::string setup;
  const std::string precision =
      pick<std::string>(generator, {"", "", "", ",store=f32", ",compute=f16", ",compute=f16,store=f32"});
  trial.half_arithmetic = precision.find("compute=f16") != std::string::npos;
  if (generator() % 5 == 0) {
    trial.half_arithmetic = false;
    trial.shape.head_dim = pick<std::int64_t>(generator, {12, 32, 80});
    // f32: no ties among outliers, so that their number is that of the formula.
    setup =
        "qaq:use_attentions=false,store=f32,n_bits=" + std::to_string(generator() % 17) +
        pick<std::string>(generator, {"", ",level=layer", ",symmetric", ",outliers=0", ",outliers=0.1,level=layer"});
  } else if (generator() % 3 == 0) {
    trial.shape.head_dim = pick<std::int64_t>(generator, {8, 24, 32, 64});
    const std::int64_t width = trial.shape.kv_heads * trial.shape.head_dim;
    int group = 16;
    for (const int wider : {24, 32, 48, 64, 96})
      if (width % wider == 0 && generator() % 2) group = wider;
    if (width % group != 0) trial.shape.head_dim = 32;
    // A prompt shorter than the sinks ends where decoding from the first token does not: none here.
    setup = "skvq:reorder=false,pre_rope=false,sink=0,k=" +
            pick<std::string>(generator, {"1.5", "2", "3", "4", "8", "16"}) +
            ",v=" + pick<std::string>(generator, {"1.5", "2", "3", "4", "8", "16"}) + ",g=" + std::to_string(group) +
            ",w=" + std::to_string(pick(generator, {0, 1, 7, 64})) +
            ",clip=" + pick<std::string>(generator, {"1", "0.92", "0.6"}) + precision;
  } else if (generator() % 2) {
    const int group = pick(generator, {16, 32, 64});
    trial.shape.head_dim = group * pick<std::int64_t>(generator, {1, 2});
    setup = "kivi:k_bits=" + std::to_string(pick(generator, {2, 3, 4, 8})) +
            ",v_bits=" + std::to_string(pick(generator, {2, 3, 4, 8})) + ",g=" + std::to_string(group) +
            ",r=" + std::to_string(group * pick(generator, {1, 2, 3})) + precision;
  } else {
    trial.shape.head_dim = pick<std::int64_t>(generator, {8, 24, 32, 64});
    const std::int64_t width = trial.shape.kv_heads * trial.shape.head_dim;
    const std::string scheme = pick<std::string>(generator, {"token_asym", "channel_asym", "token_sym"});
    std::int64_t group = pick<std::int64_t>(generator, {0, 8, 16, 24, 32, 48, 64});
    if (group > 0 && width % group != 0) group = 8;
    if (scheme == "channel_asym" && group == 0) group = 8;
    const int bits = scheme == "token_sym" ? pick(generator, {2, 3, 4, 8}) : pick(generator, {1, 2, 3, 4, 8});
    setup = "rtn:scheme=" + scheme + ",bits=" + std::to_string(bits) + ",g=" + std::to_string(group) + precision;
  }
  trial.setup = parse_kv_setup(setup).value();
  trial.prompt = pick<std::int64_t>(generator, {0, 1, 7, 31, 32, 64, 100, 190, 400});
  trial.steps = pick<std::int64_t>(generator, {1, 5, 40, 130});
  return trial;
}

/// What attention sees at one moment by the reference path: quantized range reconstructed, the rest as held.
at::Tensor reference_view(const KvMethod& method, const at::Tensor& x, KvRole role, const TokenRange& range) {
  at::Tensor seen = method.held_in_full_precision(x).clone();
  if (range.size() > 0) {
    const at::Tensor values = method.quantize(x, role, {}).values;
    seen.narrow(1, range.begin, range.size()).copy_(values.narrow(1, range.begin, range.size()));
  }
  return seen;
}

/// With f16 arithmetic the reference rounds code * scale and the sum to f16, decoding does not.
double view_tolerance(const Trial& trial, const at::Tensor& x) {
  return trial.half_arithmetic && x.numel() > 0 ? x.abs().max().item<double>() / 512.0 : 2e-6;
}

}  // namespace

class TestKvCacheProperties : public QObject {
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
    const auto method = make_kv_method(trial.setup);
    const auto cache = method->make_cache(trial.shape);
    const std::int64_t total = trial.prompt + trial.steps;
    const at::Tensor key = test::random_kv(generator, {trial.shape.kv_heads, total, trial.shape.head_dim}, 6.0);
    const at::Tensor value = test::random_kv(generator, {trial.shape.kv_heads, total, trial.shape.head_dim});
    cache->prefill(key.narrow(1, 0, trial.prompt), value.narrow(1, 0, trial.prompt));

    const double key_tolerance = view_tolerance(trial, key), value_tolerance = view_tolerance(trial, value);
    const auto [keys, values] = cache->materialize();
    QVERIFY2(test::largest_difference(keys, as_cached(*method, key.narrow(1, 0, trial.prompt), KvRole::Key, {})) <=
                 key_tolerance,
             trial.text().c_str());
    QVERIFY2(test::largest_difference(
                 values, as_cached(*method, value.narrow(1, 0, trial.prompt), KvRole::Value, {})) <= value_tolerance,
             trial.text().c_str());

    for (std::int64_t token = trial.prompt; token < total; ++token) {
      const at::Tensor query = test::random_kv(generator, {trial.shape.heads, trial.shape.head_dim});
      const at::Tensor seen_keys = key.narrow(1, 0, token + 1), seen_values = value.narrow(1, 0, token + 1);
      const TokenRange key_range = method->seen_by_query(KvRole::Key, token),
                       value_range = method->seen_by_query(KvRole::Value, token);
      const at::Tensor out = cache->append_and_attend(query, key.select(1, token), value.select(1, token));
      QCOMPARE(cache->tokens(), token + 1);
      if (token % 9 != 0 && token + 1 != total) continue;
      const at::Tensor expected =
          test::brute_force_attention(query, reference_view(*method, seen_keys, KvRole::Key, key_range),
                                      reference_view(*method, seen_values, KvRole::Value, value_range));
      // Decoding adds in f32; f16 arithmetic moves keys by an f16 step, which moves the scores.
      const double tolerance = trial.half_arithmetic ? 0.1 : 5e-5;
      QVERIFY2(test::largest_difference(out, expected) <= tolerance,
               (trial.text() + ": off by " + std::to_string(test::largest_difference(out, expected))).c_str());
    }
  }

  void allocatedBytesEqualTheFormulaAtEveryLength_data() { packedEqualsReferenceWhilePromptAndDecodingGoOn_data(); }
  void allocatedBytesEqualTheFormulaAtEveryLength() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed) + 1000);
    const Trial trial = random_trial(generator);
    const auto method = make_kv_method(trial.setup);
    const auto cache = method->make_cache(trial.shape);
    const at::Tensor prompt = test::random_kv(generator, {trial.shape.kv_heads, trial.prompt, trial.shape.head_dim});
    cache->prefill(prompt, prompt);
    const at::Tensor query = at::zeros({trial.shape.heads, trial.shape.head_dim});
    for (std::int64_t step = 0; step <= trial.steps; ++step) {
      const CacheStats stats = cache->stats();
      const double expected = method->effective_bits(trial.shape, cache->tokens());
      QVERIFY2(std::fabs(stats.effective_bits() - expected) < 1e-9,
               (trial.text() + ": " + std::to_string(stats.effective_bits()) + " against " + std::to_string(expected))
                   .c_str());
      QCOMPARE(stats.tokens, cache->tokens());
      QCOMPARE(stats.tokens_full_precision, cache->tokens() - cache->quantized(KvRole::Key).size());
      const at::Tensor token = test::random_kv(generator, {trial.shape.kv_heads, trial.shape.head_dim});
      cache->append_and_attend(query, token, token);
    }
  }

  void segmentsAreThoseOfAPromptOfTheSameLength_data() { packedEqualsReferenceWhilePromptAndDecodingGoOn_data(); }
  void segmentsAreThoseOfAPromptOfTheSameLength() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed) + 2000);
    const Trial trial = random_trial(generator);
    const auto method = make_kv_method(trial.setup);
    const auto cache = method->make_cache(trial.shape);
    const at::Tensor prompt = at::zeros({trial.shape.kv_heads, trial.prompt, trial.shape.head_dim});
    cache->prefill(prompt, prompt);
    const at::Tensor query = at::zeros({trial.shape.heads, trial.shape.head_dim}),
                     token = at::zeros({trial.shape.kv_heads, trial.shape.head_dim});
    for (std::int64_t length = trial.prompt; length < trial.prompt + trial.steps; ++length) {
      for (const KvRole role : {KvRole::Key, KvRole::Value}) {
        QCOMPARE(cache->quantized(role).size(), method->after_prefill(role, length).size());
      }
      cache->append_and_attend(query, token, token);
    }
  }

  void aPromptMayBeSplitAnywhere() {
    std::mt19937_64 generator(5);
    for (const char* setup :
         {"kivi:g=32,r=64", "skvq:reorder=false,pre_rope=false,sink=0,w=48,g=32,v=1.5", "rtn:bits=3,g=16",
          "rtn:scheme=channel_asym,g=16", "rtn:scheme=token_sym", "qaq:use_attentions=false"}) {
      const auto method = make_kv_method(parse_kv_setup(setup).value());
      const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 32};
      const at::Tensor key = test::random_kv(generator, {2, 170, 32}), value = test::random_kv(generator, {2, 170, 32});
      const auto whole = method->make_cache(shape);
      whole->prefill(key, value);
      for (const std::int64_t split : {0, 1, 63, 64, 65, 128, 169}) {
        const auto cache = method->make_cache(shape);
        cache->prefill(key.narrow(1, 0, split), value.narrow(1, 0, split));
        for (std::int64_t t = split; t < 170; ++t)
          cache->append_and_attend(at::zeros({4, 32}), key.select(1, t), value.select(1, t));
        QVERIFY2(cache->materialize().first.equal(whole->materialize().first), setup);
        QVERIFY2(cache->materialize().second.equal(whole->materialize().second), setup);
      }
    }
  }

  void constantZeroAndSingleTokenInputsStayFinite() {
    for (const char* setup : {"kivi", "skvq:reorder=false,pre_rope=false,w=8,g=32", "kivi:compute=f16", "rtn:g=32",
                              "rtn:bits=1,g=0", "rtn:scheme=token_sym,bits=2", "rtn:scheme=channel_asym,g=16", "qaq",
                              "qaq:use_attentions=false,outliers=0"}) {
      const auto method = make_kv_method(parse_kv_setup(setup).value());
      for (const double constant : {0.0, -2.5, 1e-7}) {
        for (const std::int64_t tokens : {1, 40, 300}) {
          const auto cache = method->make_cache({.heads = 2, .kv_heads = 2, .head_dim = 32});
          const at::Tensor x = at::full({2, tokens, 32}, constant);
          cache->prefill(x, x);
          const at::Tensor out = cache->append_and_attend(at::ones({2, 32}), x.select(1, 0), x.select(1, 0));
          QVERIFY2(
              at::isfinite(out).all().item<bool>() && test::largest_difference(out, at::full({2, 32}, constant)) < 1e-5,
              setup);
        }
      }
    }
  }

  void theFullPrecisionCacheIsPlainAttention() {
    std::mt19937_64 generator(6);
    for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
      for (const std::int64_t head_dim : {6, 64, 128}) {
        const CacheShape shape{.heads = 6, .kv_heads = 2, .head_dim = head_dim};
        const auto cache = make_full_precision_cache(shape, type);
        const at::Tensor key = test::random_kv(generator, {2, 333, head_dim}),
                         value = test::random_kv(generator, {2, 333, head_dim});
        cache->prefill(key.narrow(1, 0, 300), value.narrow(1, 0, 300));
        for (std::int64_t t = 300; t < 333; ++t) {
          const at::Tensor query = test::random_kv(generator, {6, head_dim});
          const at::Tensor out = cache->append_and_attend(query, key.select(1, t), value.select(1, t));
          const at::Tensor expected =
              test::brute_force_attention(query, key.narrow(1, 0, t + 1).to(type), value.narrow(1, 0, t + 1).to(type));
          QVERIFY(test::largest_difference(out, expected) < 2e-5);
        }
        QCOMPARE(cache->stats().bytes(),
                 static_cast<std::int64_t>(2 * 333 * 2 * head_dim) * static_cast<std::int64_t>(c10::elementSize(type)));
        QCOMPARE(cache->stats().tokens_full_precision, std::int64_t{333});
        QVERIFY(cache->materialize().first.equal(key.to(type).to(at::kFloat)));
      }
    }
  }

  void theWeightsOfAStepAreItsSoftmax() {
    std::mt19937_64 generator(9);
    const int threads = at::get_num_threads();
    for (const std::int64_t head_dim : {20, 32, 128}) {  // 20: no fused rows
      const CacheShape shape{.heads = 6, .kv_heads = 2, .head_dim = head_dim};
      FloatRows first(2, head_dim, at::kHalf), second(2, head_dim, at::kHalf);
      const at::Tensor rows = test::random_kv(generator, {3000, 2 * head_dim});
      first.append(rows.data_ptr<float>(), 2411);
      second.append(rows.data_ptr<float>() + 2411 * 2 * head_dim, 589);
      const at::Tensor query = test::random_kv(generator, {6, head_dim});
      const at::Tensor key = rows.to(at::kHalf).to(at::kDouble).view({3000, 2, 1, head_dim}).permute({1, 2, 0, 3});
      const at::Tensor scores = at::matmul(key, query.to(at::kDouble).view({2, 3, head_dim, 1})).squeeze(-1);
      const at::Tensor expected = at::softmax(scores / std::sqrt(static_cast<double>(head_dim)), -1).view({6, 3000});
      for (const std::int64_t begin : {0, 2990, 3000}) {
        at::set_num_threads(begin == 0 ? 2 : 1);
        AttentionWeights weights{.first_token = begin, .weights = {}};
        at::Tensor out = at::empty({6, head_dim});
        attend_stores({&first, &second}, {&first, &second}, shape, query.data_ptr<float>(), out.data_ptr<float>(),
                      &weights);
        const at::Tensor found = at::tensor(weights.weights, at::kFloat).view({6, 3000 - begin});
        QVERIFY(test::largest_difference(found, expected.narrow(1, begin, 3000 - begin)) < 1e-6);
      }
    }
    at::set_num_threads(threads);
  }

  void aLongCacheSharedByThreadsGivesTheSameAttention() {
    std::mt19937_64 generator(8);
    const int threads = at::get_num_threads();
    at::set_num_threads(2);
    const CacheShape shape{.heads = 8, .kv_heads = 4, .head_dim = 64};
    const auto method = make_kv_method(parse_kv_setup("kivi").value());
    const at::Tensor key = test::random_kv(generator, {4, 5001, 64}), value = test::random_kv(generator, {4, 5001, 64});
    const auto cache = method->make_cache(shape);
    cache->prefill(key.narrow(1, 0, 5000), value.narrow(1, 0, 5000));
    const at::Tensor query = test::random_kv(generator, {8, 64}) * 3.0;
    const at::Tensor out = cache->append_and_attend(query, key.select(1, 5000), value.select(1, 5000));
    at::set_num_threads(threads);
    const at::Tensor expected = test::brute_force_attention(
        query, reference_view(*method, key, KvRole::Key, method->seen_by_query(KvRole::Key, 5000)),
        reference_view(*method, value, KvRole::Value, method->seen_by_query(KvRole::Value, 5000)));
    QVERIFY(test::largest_difference(out, expected) < 2e-5);
  }
};

QTEST_APPLESS_MAIN(TestKvCacheProperties)
#include "tst_kv_cache_properties.moc"
