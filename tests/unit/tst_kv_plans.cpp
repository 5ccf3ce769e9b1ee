// Setups that differ from layer to layer, evaluation of methods that depend on attention, and the search for a setup.
#include <ATen/ATen.h>

#include <QtTest>
#include <functional>
#include <random>
#include <stop_token>

#include "backend/evaluation/decode_window.h"
#include "backend/evaluation/kv_auto.h"
#include "backend/evaluation/window_attention.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/model/cached_attention.h"
#include "backend/types/error.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

std::shared_ptr<const Model> sample() {
  static const auto model = Model::load(QS_RESOURCES "/sample/sample-hf", {}, {});
  return model;
}

std::shared_ptr<const Variant> variant(const std::string& kv) {
  return make_variant(sample(), std::nullopt, parse_kv_setup(kv), nullptr, WeightExecution::Simulated, {});
}

EvalRequest request(std::int64_t window, std::int64_t windows) {
  EvalRequest result;
  result.text = read_text(QS_RESOURCES "/texts/sample-valid.txt");
  result.text.text.resize(result.text.text.rfind(' ', 4000));  // tokenizing all of it would take seconds
  result.window = window;
  result.windows = windows;
  return result;
}

std::vector<std::int64_t> window_ids(std::int64_t tokens) {
  std::vector<std::int64_t> ids = encode_with_bos(sample()->tokenizer(), request(tokens, 1).text.text);
  ids.resize(static_cast<std::size_t>(tokens));
  return ids;
}

at::Tensor logits(const std::string& kv, std::int64_t tokens, KvMode mode = KvMode::Streaming) {
  return window_logits(*variant(kv), window_ids(tokens), mode, {});
}

std::string canonical(const std::string& text) { return format_setup(parse_kv_setup(text).value(), kv_method_infos()); }

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "(accepted)";
}

}  // namespace

class TestKvPlans : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void perLayerLinesRoundTrip_data() {
    QTest::addColumn<QString>("line");
    QTest::addColumn<QString>("expected");
    const auto row = [](const char* line, const char* expected) { QTest::newRow(line) << line << expected; };
    row("layers:0-3=kivi:k=4,v=4;4-5=kivi;*=none", "layers:0-3=kivi:k_bits=4,v_bits=4;4-5=kivi;*=none");
    row("layers:*=rtn;2=kivi:bits=4", "layers:2=kivi:k_bits=4,v_bits=4;*=rtn");
    row("layers:4,0-1=kivi;*=none", "layers:0-1=kivi;4=kivi;*=none");
    row("layers:0=kivi:g=16,r=32+scope:slide,window=48,recent=32;*=k4-v4-g64-w64-KIVI",
        "layers:0=kivi:group_size=16,residual_length=32+scope:window=48,recent=32;"
        "*=kivi:k_bits=4,v_bits=4,group_size=64,residual_length=64");
    row("kivi:k=2,v=2,g=32,r=256+scope:slide,prompt=2048,window=512,recent=256,max_out=4096",
        "kivi:residual_length=256+scope");
  }
  void perLayerLinesRoundTrip() {
    QFETCH(QString, line);
    QFETCH(QString, expected);
    QCOMPARE(QString::fromStdString(canonical(line.toStdString())), expected);
    QVERIFY(parse_kv_setup(line.toStdString()) == parse_kv_setup(expected.toStdString()));
  }

  void wrongPerLayerLinesNameTheRange_data() {
    QTest::addColumn<QString>("line");
    QTest::addColumn<QString>("expected");
    const auto row = [](const char* line, const char* expected) { QTest::newRow(line) << line << expected; };
    row("layers:", "no range is given");
    row("layers:kivi", "a range of layers");
    row("layers:3-1=kivi", "ends before it begins");
    row("layers:0-3=kivi;2=rtn", "the ranges 0-3 and 2");
    row("layers:*=kivi;*=rtn", "the ranges * and *");
    row("layers:0x=kivi", "'0x' is no range");
    row("layers:0-3=kivy", "Layers 0-3: There is no method 'kivy'");
    row("layers:4-5=kivi:r=100", "Layers 4-5");
    row("layers:0=layers:1=kivi", "cannot hold another");
  }
  void wrongPerLayerLinesNameTheRange() {
    QFETCH(QString, line);
    QFETCH(QString, expected);
    const QString message = QString::fromStdString(error_of([&] { parse_kv_setup(line.toStdString()); }));
    QVERIFY2(message.contains(expected), qPrintable(message));
  }

  void everyLayerMustBeCovered() {
    const auto plan_error = [](const std::string& line) {
      return error_of([&] { make_kv_plan(parse_kv_setup(line).value(), 6, nullptr); });
    };
    QVERIFY(plan_error("layers:0-4=kivi").find("layer 5 has no setup") != std::string::npos);
    QVERIFY(plan_error("layers:0-6=kivi").find("beyond the model") != std::string::npos);
    const auto plan = make_kv_plan(parse_kv_setup("layers:0-4=kivi:k=4,v=4;*=none").value(), 6, nullptr);
    const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 64};
    QCOMPARE(plan->layer(5).effective_bits(shape, 4096), 16.0);
    QVERIFY(plan->layer(0).effective_bits(shape, 1 << 22) < 5.01);
    QCOMPARE(plan->effective_bits(shape, 100), 16.0);
  }

  void aPlanOfOneMethodIsThatMethod() {
    const std::string kivi = "kivi:g=16,r=32";
    for (const KvMode mode : {KvMode::Streaming, KvMode::PrefillQuantized}) {
      QVERIFY(at::equal(logits(kivi, 120, mode), logits("layers:0-1=" + kivi + ";*=" + kivi, 120, mode)));
      const at::Tensor mixed = logits("layers:0=" + kivi + ";1=rtn:bits=4,g=0;*=none", 120, mode);
      QVERIFY(!at::equal(mixed, logits(kivi, 120, mode)));
    }
    QVERIFY(test::largest_difference(logits("layers:*=none", 120), logits("none", 120)) < 0.05);
  }

  void mixedPlansAreEvaluatedAsTheyDecode() {
    // Attention-aware in one layer only: the whole window decodes, and the others see what they always see.
    const std::string others = ";1=rtn:bits=4,g=0;*=kivi:g=16,r=32";
    const auto mixed = variant("layers:0=none" + others);
    const DecodedWindow decoded = decode_window(*mixed, window_ids(64), {});
    QVERIFY(test::largest_difference(decoded.logits, logits("layers:0=none" + others, 64)) < 0.25);
    const std::string scope = "layers:0=scope:prompt=64,window=64,recent=32" + others;
    QVERIFY(variant(scope)->kv()->depends_on_attention());
    QVERIFY(test::largest_difference(logits(scope, 64), decoded.logits) < 1e-5);  // nothing is evicted yet
  }

  void streamingScopeIsWhatDecodingSees() {
    const std::string scope = "scope:prompt=16,window=24,recent=8,prefill=allkv,p_eff=true";
    const auto selecting = variant(scope);
    const DecodedWindow decoded = decode_window(*selecting, window_ids(64), {});
    QVERIFY(at::equal(decoded.logits, window_logits(*selecting, window_ids(64), KvMode::Streaming, {})));
    QCOMPARE(decoded.cache.tokens, std::int64_t{1 + 24});
    QCOMPARE(decoded.cache.tokens_evicted, std::int64_t{39});
    const at::Tensor full = logits("none", 64);
    QVERIFY(test::largest_difference(decoded.logits.narrow(0, 0, 24), full.narrow(0, 0, 24)) < 0.05);
    QVERIFY(test::largest_difference(decoded.logits.narrow(0, 40, 24), full.narrow(0, 40, 24)) > 0.05);

    const EvalReport report = evaluate(*selecting, *variant(""), request(64, 1), {});
    QCOMPARE(report.memory.kv_bytes, decoded.cache.bytes());
    QCOMPARE(report.memory.kv_bytes_full_precision, 64 * sample()->info().kv_bytes_per_token());
    QVERIFY(report.kv_bits > 16.0 && report.kv_bits < 17.0);
    QVERIFY(report.memory.kv_bytes < report.memory.kv_bytes_full_precision / 2);
    QVERIFY(report.tasks[1].value > 0.0);
    std::stop_source stop;
    const JobContext job(stop.get_token(), [&stop](double, std::string_view) { stop.request_stop(); });
    QVERIFY_EXCEPTION_THROWN(evaluate(*selecting, *variant(""), request(64, 1), job), Cancelled);
  }

  void onePassScopeShowsTheKeptTokensAndTheQuerysOwn() {
    const at::Tensor full = logits("layers:*=none", 80, KvMode::PrefillQuantized);
    QVERIFY(at::equal(logits("scope:prompt=81", 80, KvMode::PrefillQuantized), full));
    // A prompt that keeps the first 12 and the last 4 tokens: early queries see what they always see.
    const at::Tensor cut = logits("scope:prompt=16,prefill=streaming,w=4", 80, KvMode::PrefillQuantized);
    QVERIFY(test::largest_difference(cut.narrow(0, 0, 13), full.narrow(0, 0, 13)) < 1e-4);
    QVERIFY(test::largest_difference(cut.narrow(0, 20, 60), full.narrow(0, 20, 60)) > 0.05);
    QVERIFY(at::isfinite(logits("kivi:g=16,r=32+scope:prompt=16,w=4,window=24,recent=8", 80, KvMode::PrefillQuantized))
                .all()
                .item<bool>());
  }

  void theChoiceIsTheCheapestWithinTheBudget() {
    std::mt19937_64 generator(8);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (int round = 0; round < 40; ++round) {
      const std::size_t layers = 1 + generator() % 5, candidates = 1 + generator() % 4;
      std::vector<std::vector<double>> cost(layers), bits(layers);
      for (std::size_t layer = 0; layer < layers; ++layer) {
        for (std::size_t i = 0; i < candidates; ++i) {
          cost[layer].push_back(uniform(generator));
          bits[layer].push_back(2.0 + static_cast<double>(generator() % 4096) / 1024.0);
        }
      }
      const double budget = static_cast<double>(layers) * (2.0 + 4.0 * uniform(generator));
      double best = 1e9;
      std::size_t combinations = 1;
      for (std::size_t layer = 0; layer < layers; ++layer) combinations *= candidates;
      for (std::size_t code = 0; code < combinations; ++code) {
        double sum = 0.0, used = 0.0;
        for (std::size_t layer = 0, rest = code; layer < layers; ++layer, rest /= candidates) {
          sum += cost[layer][rest % candidates];
          used += bits[layer][rest % candidates];
        }
        if (used <= budget) best = std::min(best, sum);
      }
      if (best == 1e9) {
        QVERIFY_EXCEPTION_THROWN(cheapest_within(cost, bits, budget), Error);
        continue;
      }
      const std::vector<std::size_t> choice = cheapest_within(cost, bits, budget);
      double sum = 0.0, used = 0.0;
      for (std::size_t layer = 0; layer < layers; ++layer) {
        sum += cost[layer][choice[layer]];
        used += bits[layer][choice[layer]];
      }
      QVERIFY(used <= budget + 1e-9);
      QVERIFY(std::abs(sum - best) < 1e-9);
    }
  }

  void aNanNamesLayerHeadAndToken_data() {
    QTest::addColumn<QString>("setup");
    for (const char* setup :
         {"kivi:g=16,r=16", "rtn-token-asym:bits=4,g=16", "qaq", "scope:prompt=32,window=16,recent=8,max_out=64"})
      QTest::newRow(setup) << setup;
  }
  void aNanNamesLayerHeadAndToken() {
    QFETCH(QString, setup);
    const ArchitectureSpec& spec = sample()->spec();
    const auto plan = make_kv_plan(parse_kv_setup(setup.toStdString()).value(), spec.layers, nullptr);
    std::mt19937_64 generator(5);
    AttentionCall call{.layer = 1,
                       .query = test::random_kv(generator, {spec.heads, 40, spec.head_dim}),
                       .key = test::random_kv(generator, {spec.kv_heads, 40, spec.head_dim}),
                       .value = test::random_kv(generator, {spec.kv_heads, 40, spec.head_dim})};
    call.key[1][17][3] = std::numeric_limits<float>::quiet_NaN();
    call.key_pre_rope = call.key;
    const auto names_the_place = [](const std::string& message) {
      return message.starts_with("Layer 1: The key of head 1, token 17, channel 3 is not a number");
    };
    CachedAttention cached(spec, plan.get(), {}, at::kFloat, 1);
    const std::string decoding = error_of([&] { cached.attend(call); });
    QVERIFY2(names_the_place(decoding), decoding.c_str());
    WindowAttention window(*plan, KvMode::PrefillQuantized, spec, {});
    const std::string teacher_forced = error_of([&] { window.attend(call); });
    QVERIFY2(names_the_place(teacher_forced), teacher_forced.c_str());
  }

  void theSearchAssemblesMeasuresAndCompares() {
    KvAutoRequest search;
    for (const char* line : {"kivi:g=16,r=16", "kivi:k=4,v=4,g=16,r=16", "kivi:k=8,v=8,g=16,r=16"})
      search.candidates.push_back(parse_kv_setup(line).value());
    search.budget_bits = 7.5;
    search.evaluation = request(64, 1);
    const KvAutoResult result = choose_kv_setups(sample(), search, {});
    QVERIFY(result.checked_on_other_windows);
    QVERIFY(result.bits <= 7.5);
    QCOMPARE(result.choice.size(), static_cast<std::size_t>(sample()->spec().layers));
    const auto assembled = parse_kv_setup(result.setup).value();
    QCOMPARE(format_setup(assembled, kv_method_infos()), result.setup);
    const auto plan = make_kv_plan(assembled, sample()->spec().layers, nullptr);
    const CacheShape shape{
        .heads = sample()->spec().heads, .kv_heads = sample()->spec().kv_heads, .head_dim = sample()->spec().head_dim};
    QVERIFY(std::abs(plan->effective_bits(shape, 64) - result.bits) < 1e-9);
    QVERIFY(!result.candidates[2].fits && result.candidates[0].fits);
    QVERIFY(result.candidates[0].uniform_kl > result.candidates[2].uniform_kl);
    for (std::size_t layer = 0; layer < result.choice.size(); ++layer)
      QVERIFY(result.candidates[0].layer_kl[layer] > result.candidates[2].layer_kl[layer]);
    QVERIFY(!result.best_uniform.empty() && result.better == (result.measured_kl <= result.uniform_kl));
    search.budget_bits = 2.0;
    QVERIFY(error_of([&] { choose_kv_setups(sample(), search, {}); }).find("cannot be met") != std::string::npos);
  }
};

QTEST_GUILESS_MAIN(TestKvPlans)
#include "tst_kv_plans.moc"
