#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <QtTest>
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/k_means.h"
#include "backend/methods/skvq.h"
#include "backend/methods/skvq_calibration.h"
#include "backend/model/decoder.h"
#include "backend/types/error.h"
#include "kernels/float_formats.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

template <typename T>
T pick(std::mt19937_64& generator, std::initializer_list<T> values) {
  return values.begin()[generator() % values.size()];
}

Setup setup_of(const std::string& text) { return parse_kv_setup(text).value(); }

/// A random order with unequal groups, some of them empty.
void add_groups(std::mt19937_64& generator, const std::string& prefix, std::int64_t width, std::int64_t groups,
                KvLayerArtifact& artifact) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(width)), start = {0};
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), generator);
  for (std::int64_t i = 1; i < groups; ++i)
    start.push_back(static_cast<std::int32_t>(generator() % static_cast<std::uint64_t>(width + 1)));
  std::sort(start.begin(), start.end());
  start.push_back(static_cast<std::int32_t>(width));
  artifact[prefix + "order"] = at::tensor(order, at::kInt);
  artifact[prefix + "start"] = at::tensor(start, at::kInt);
}

struct Trial {
  Setup setup;
  CacheShape shape;
  KvLayerArtifact artifact;
  std::int64_t prompt = 0, steps = 0;
  bool half_arithmetic = false;
  std::string text() const {
    return format_setup(setup, kv_method_infos()) + " heads " + std::to_string(shape.heads) + "/" +
           std::to_string(shape.kv_heads) + " x " + std::to_string(shape.head_dim) + ", prompt " +
           std::to_string(prompt) + ", steps " + std::to_string(steps);
  }
};

Trial random_trial(std::mt19937_64& generator) {
  Trial trial;
  trial.shape.kv_heads = pick<std::int64_t>(generator, {1, 2, 3, 4});
  trial.shape.heads = trial.shape.kv_heads * pick<std::int64_t>(generator, {1, 2, 5});
  trial.shape.head_dim = pick<std::int64_t>(generator, {16, 32, 48, 64, 128});
  trial.shape.rope.theta = 1000.0;
  const std::int64_t width = trial.shape.kv_heads * trial.shape.head_dim;
  const bool smooth = generator() % 4 == 0, clips = generator() % 3 == 0;
  const int sink = pick(generator, {0, 1, 5});
  const std::string store = pick<std::string>(generator, {"f16", "f16", "e4m3", "e5m2", "f32"});
  trial.half_arithmetic = generator() % 5 == 0;
  const auto bits = [&] { return pick<std::string>(generator, {"1.5", "1.5", "2", "2", "3", "4", "8", "16"}); };
  trial.setup =
      setup_of("skvq:k=" + bits() + ",v=" + bits() + ",g=16,w=" + std::to_string(pick(generator, {0, 1, 16, 50})) +
               ",sink=" + std::to_string(sink) + ",pre_rope=" + (generator() % 2 ? "true" : "false") + ",smooth=" +
               (smooth ? "true" : "false") + ",clip=0.92,clip_rule=" + (clips ? "search_groups" : "fixed") +
               ",clip_mode=" + (generator() % 4 == 0 ? "centre" : "zero") + ",rounded_parameters=" +
               (generator() % 3 == 0 ? "true" : "false") + ",container=" + (generator() % 2 ? "2bit" : "trit5") +
               ",store=" + store + ",compute=" + (trial.half_arithmetic ? "f16" : "f32"));
  const std::int64_t groups = width / 16;
  for (const char* side : {"k_", "v_"}) {
    const std::string prefix = side;
    add_groups(generator, prefix, width, groups, trial.artifact);
    if (clips) trial.artifact[prefix + "clip"] = (at::rand({groups}) * 0.2 + 0.8).to(at::kHalf);
    if (smooth) trial.artifact[prefix + "smooth"] = at::rand({width}) + 0.5;
  }
  trial.prompt = std::max<std::int64_t>(sink, pick<std::int64_t>(generator, {1, 3, 20, 57, 130, 300}));
  trial.steps = pick<std::int64_t>(generator, {1, 9, 60});
  return trial;
}

at::Tensor reference_view(const KvMethod& method, const at::Tensor& x, KvRole role, const TokenRange& range) {
  at::Tensor seen = method.held_in_full_precision(x).clone();
  if (range.size() > 0) {
    const at::Tensor values = method.quantize(x, role, {}).values;
    seen.narrow(1, range.begin, range.size()).copy_(values.narrow(1, range.begin, range.size()));
  }
  return seen;
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "(accepted)";
}

}  // namespace

class TestSkvq : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() { at::set_num_threads(1); }

  /// Two groups worked by hand: V1 with clip 0.5.. towards zero and about the middle.
  void theQuantizerIsThatOfThePaper() {
    SkvqQuantizer quantizer;
    quantizer.top = 3;
    quantizer.store = ParameterType::F32;
    quantizer.groups.order = {2, 0, 3, 1};
    quantizer.groups.start = {0, 2, 2, 4};
    quantizer.clip = {0.9f};
    // Group 0: channels 2 and 0 hold -1 and 2; group 1 is empty; group 2: channels 3 and 1 hold 10 and 12.
    const at::Tensor x = at::tensor(std::vector<float>{2, 12, -1, 10}, at::kFloat).view({1, 4});
    const TokenCodes codes = quantize_channel_groups(x, quantizer);
    const float low0 = 0.9f * -1, high0 = 0.9f * 2, low2 = 0.9f * 10, high2 = 0.9f * 12;
    QCOMPARE(codes.scale[0][0].item<float>(), (high0 - low0) / 3);
    QCOMPARE(codes.group_min[0][0].item<float>(), low0);
    QCOMPARE(codes.scale[0][1].item<float>(), 0.0f);
    QCOMPARE(codes.scale[0][2].item<float>(), (high2 - low2) / 3);
    QVERIFY(codes.codes.equal(at::tensor(std::vector<int>{3, 3, 0, 2}, at::kInt).to(at::kByte).view({1, 4})));
    QCOMPARE(codes.values[0][3].item<float>(), 2 * ((high2 - low2) / 3) + low2);
    QCOMPARE(codes.saturated, 0.75);  // -1, 2 and 12 lie beyond the clipped ranges
    quantizer.centre_clip = true;
    const TokenCodes centred = quantize_channel_groups(x, quantizer);
    QVERIFY(std::fabs(centred.group_min[0][2].item<float>() - 10.1f) < 1e-5f);
    QVERIFY(std::fabs(centred.values[0][1].item<float>() - 11.9f) < 1e-5f);
  }

  void threeLevelsUseThreeCodes() {
    std::mt19937_64 generator(2);
    SkvqQuantizer quantizer;
    quantizer.top = 2;
    quantizer.groups = ChannelGroups::blocks(64, 32);
    const TokenCodes codes = quantize_channel_groups(test::random_kv(generator, {50, 64}), quantizer);
    QCOMPARE(codes.codes.max().item<int>(), 2);
    QVERIFY((codes.codes == 1).any().item<bool>());
  }

  void eightBitParametersAreThoseOfTheFormat() {
    std::mt19937_64 generator(3);
    for (const ParameterType type : {ParameterType::E4M3, ParameterType::E5M2}) {
      SkvqQuantizer quantizer;
      quantizer.store = type;
      quantizer.groups = ChannelGroups::blocks(32, 16);
      const TokenCodes codes = quantize_channel_groups(test::random_kv(generator, {40, 32}, 5.0), quantizer);
      for (const at::Tensor& kept : {codes.scale, codes.group_min}) {
        const at::Tensor flat = kept.reshape({-1});
        for (std::int64_t i = 0; i < flat.numel(); ++i) {
          const float value = flat[i].item<float>();
          const float back = type == ParameterType::E4M3 ? kernels::e4m3_to_f32(kernels::f32_to_e4m3(value))
                                                         : kernels::e5m2_to_f32(kernels::f32_to_e5m2(value));
          QCOMPARE(back, value);
        }
      }
    }
  }

  void packedEqualsReferenceWhilePromptAndDecodingGoOn_data() {
    QTest::addColumn<int>("seed");
    for (int seed = 0; seed < 80; ++seed) QTest::addRow("%d", seed) << seed;
  }
  void packedEqualsReferenceWhilePromptAndDecodingGoOn() {
    QFETCH(int, seed);
    std::mt19937_64 generator(static_cast<std::uint64_t>(seed));
    at::manual_seed(static_cast<std::uint64_t>(seed));
    const Trial trial = random_trial(generator);
    const Skvq method(trial.setup.params, &trial.artifact);
    const auto cache = method.make_cache(trial.shape);
    const std::int64_t total = trial.prompt + trial.steps;
    const at::Tensor key = test::random_kv(generator, {trial.shape.kv_heads, total, trial.shape.head_dim}, 6.0);
    const at::Tensor value = test::random_kv(generator, {trial.shape.kv_heads, total, trial.shape.head_dim});
    cache->prefill(key.narrow(1, 0, trial.prompt), value.narrow(1, 0, trial.prompt));
    // With f16 arithmetic the reference rounds code * scale, the sum and the division to f16; decoding does not.
    const auto near = [&](const at::Tensor& a, const at::Tensor& b) {
      const double allowed = trial.half_arithmetic ? b.abs().max().item<double>() / 400.0 : 4e-6;
      return test::largest_difference(a, b) <= allowed;
    };
    const auto check_bytes = [&] {
      const double expected = method.effective_bits(trial.shape, cache->tokens());
      QVERIFY2(std::fabs(cache->stats().effective_bits() - expected) < 1e-9, trial.text().c_str());
    };
    const auto [keys, values] = cache->materialize();
    QVERIFY2(near(keys, as_cached(method, key.narrow(1, 0, trial.prompt), KvRole::Key, {})), trial.text().c_str());
    QVERIFY2(near(values, as_cached(method, value.narrow(1, 0, trial.prompt), KvRole::Value, {})),
             trial.text().c_str());
    check_bytes();
    for (std::int64_t token = trial.prompt; token < total; ++token) {
      const at::Tensor query = test::random_kv(generator, {trial.shape.heads, trial.shape.head_dim});
      const TokenRange range = method.seen_by_query(KvRole::Value, token);
      const at::Tensor out = cache->append_and_attend(query, key.select(1, token), value.select(1, token));
      for (const KvRole role : {KvRole::Key, KvRole::Value}) {
        QCOMPARE(cache->quantized(role).size(), method.after_prefill(role, token + 1).size());
        if (cache->quantized(role).size() > 0)
          QCOMPARE(cache->quantized(role).begin, method.after_prefill(role, token + 1).begin);
      }
      check_bytes();
      if (token % 7 != 0 && token + 1 != total) continue;
      at::Tensor seen_keys =
          reference_view(method, key.narrow(1, 0, token + 1), KvRole::Key, method.seen_by_query(KvRole::Key, token));
      if (method.key_domain() == KeyDomain::PreRope) seen_keys = apply_rope(seen_keys, 0, trial.shape.rope);
      const at::Tensor expected = test::brute_force_attention(
          query, seen_keys, reference_view(method, value.narrow(1, 0, token + 1), KvRole::Value, range));
      const double error = test::largest_difference(out, expected);
      QVERIFY2(error <= (trial.half_arithmetic ? 0.2 : 3e-4),
               (trial.text() + ": off by " + std::to_string(error)).c_str());
    }
  }

  /// Section 5.5 event by event, from prompts shorter and longer than sinks and window.
  void segmentsFollowTheStreamingRules() {
    for (const auto& [sink, window] :
         {std::pair{5, 16}, std::pair{0, 16}, std::pair{5, 0}, std::pair{0, 0}, std::pair{1, 1}}) {
      for (const std::int64_t prompt : {0, 1, 4, 5, 6, 20, 21, 22, 60}) {
        const auto method = make_kv_method(
            setup_of("skvq:reorder=false,g=16,sink=" + std::to_string(sink) + ",w=" + std::to_string(window)));
        const auto cache = method->make_cache({.heads = 1, .kv_heads = 1, .head_dim = 16});
        cache->prefill(at::zeros({1, prompt, 16}), at::zeros({1, prompt, 16}));
        std::int64_t sinks = std::min<std::int64_t>(sink, prompt);
        std::int64_t quantized = std::max<std::int64_t>(0, prompt - sink - window);
        std::int64_t recent = prompt - sinks - quantized;
        for (int step = 0; step < 50; ++step) {
          QCOMPARE(cache->quantized(KvRole::Key).begin, sinks);
          QCOMPARE(cache->quantized(KvRole::Key).size(), quantized);
          QCOMPARE(cache->tokens() - cache->quantized(KvRole::Value).end, recent);
          cache->append_and_attend(at::zeros({1, 16}), at::zeros({1, 16}), at::zeros({1, 16}));
          if (sinks > 0 && sinks < sink) {
            ++sinks;
          } else if (recent < window) {
            ++recent;
          } else {
            ++quantized;
          }
        }
      }
    }
  }

  void aConstantGroupIsExact() {
    for (const char* bits : {"1.5", "2", "4"}) {
      const auto method =
          make_kv_method(setup_of("skvq:reorder=false,w=0,sink=0,g=16,k=" + std::string(bits) + ",v=" + bits));
      const at::Tensor x = at::full({2, 9, 16}, 1.375);
      QVERIFY(method->quantize(x, KvRole::Key, {}).values.equal(x));
      const auto cache = method->make_cache({.heads = 2, .kv_heads = 2, .head_dim = 16});
      cache->prefill(x, x);
      QVERIFY(cache->materialize().second.equal(x));
    }
  }

  void badInputIsNamed() {
    const auto method = make_kv_method(setup_of("skvq:reorder=false,g=16"));
    at::Tensor x = at::zeros({2, 9, 16});
    x[1][7][3] = std::nan("");
    const std::string message = message_of([&] { method->quantize(x, KvRole::Value, {}); });
    QVERIFY2(message.find("value of head 1, token 7") != std::string::npos, message.c_str());
    const auto cache = method->make_cache({.heads = 2, .kv_heads = 2, .head_dim = 16});
    QVERIFY(message_of([&] { cache->prefill(x, x); }).find("head 1, token 7") != std::string::npos);
  }

  void aMissingOrWrongCalibrationIsNamed() {
    const CacheShape shape{.heads = 2, .kv_heads = 2, .head_dim = 32};
    const auto method = make_kv_method(setup_of("skvq:g=32"));
    QVERIFY(method->effective_bits(shape, 1000) > 2.0);  // can be described
    QVERIFY(message_of([&] { method->make_cache(shape); }).find("Calibrate it first") != std::string::npos);
    std::mt19937_64 generator(4);
    KvLayerArtifact artifact;
    add_groups(generator, "k_", 64, 2, artifact);
    const auto refused = [&](const char* part) {
      const std::string message = message_of([&] { Skvq(setup_of("skvq:g=32").params, &artifact); });
      return message.find(part) != std::string::npos;
    };
    QVERIFY(refused("values"));
    add_groups(generator, "v_", 64, 2, artifact);
    Skvq(setup_of("skvq:g=32").params, &artifact).make_cache(shape);
    QVERIFY(message_of([&] {
              Skvq(setup_of("skvq:g=32").params, &artifact).make_cache({.heads = 4, .kv_heads = 4, .head_dim = 32});
            }).find("Calibrate with this model") != std::string::npos);
    artifact["k_order"][3] = 64;
    QVERIFY(refused("no permutation"));
    artifact["k_order"][3] = artifact["k_order"][4];
    QVERIFY(refused("no permutation"));
    add_groups(generator, "k_", 64, 2, artifact);
    artifact["k_start"] = at::tensor(std::vector<int>{0, 70, 64}, at::kInt);
    QVERIFY(refused("begins at 70"));
    artifact["k_start"] = at::tensor(std::vector<int>{0, 30, 63}, at::kInt);
    QVERIFY(refused("do not cover"));
    artifact["k_start"] = at::zeros({3});
    QVERIFY(refused("whole numbers"));
    QVERIFY(message_of([&] { Skvq(setup_of("skvq:reorder=false,clip=search").params, &artifact); }).find("k_clip") !=
            std::string::npos);
  }

  void publishedAndStoredBits() {
    const auto bits = [](const std::string& text, std::int64_t kv_heads, std::int64_t head_dim) {
      const Skvq method(setup_of(text).params, nullptr);
      return std::pair{method.nominal_bits(KvRole::Value, kv_heads * head_dim),
                       method.stored_bits(KvRole::Value, kv_heads, head_dim)};
    };
    QCOMPARE(bits("skvq:fp8", 8, 128), std::pair(2.125, 2.125));
    QCOMPARE(bits("skvq:fp8,g=64", 8, 128), std::pair(2.25, 2.25));
    QCOMPARE(bits("skvq:fp8,g=32", 8, 128), std::pair(2.5, 2.5));
    QCOMPARE(bits("skvq", 8, 128), std::pair(2.25, 2.25));
    const auto trits = bits("skvq:v=1.5,fp8", 8, 128);
    QCOMPARE(trits.first, 1.625);
    QVERIFY(std::fabs(trits.second / 1.725 - 1.0) < 0.01);
    QCOMPARE(bits("skvq:v=1.5,fp8,container=2bit", 8, 128).second, 2.125);
  }

  void kMeansFindsSeparateClouds() {
    std::mt19937_64 generator(9);
    std::normal_distribution<double> near(0.0, 0.1);
    std::vector<double> points;
    for (int i = 0; i < 120; ++i) {
      points.push_back(10.0 * (i % 4) + near(generator));
      points.push_back(-7.0 * (i % 4 / 2) + near(generator));
    }
    const Clusters found = k_means(points, 2, 4, 10, 1);
    for (int i = 4; i < 120; ++i) QCOMPARE(found.of_point[i], found.of_point[i % 4]);
    const Clusters again = k_means(points, 2, 4, 10, 1);
    QVERIFY(found.of_point == again.of_point && found.centres == again.centres);
    QVERIFY(k_means({1, 1, 1, 2}, 1, 3, 10, 0).inertia == 0.0);  // fewer points than clusters
  }

  void groupsComeInOrderOfTheirRanges() {
    std::mt19937_64 generator(10);
    const at::Tensor widths =
        at::pow(at::tensor(std::vector<double>{0.0, 2.0, 1.0, 3.0}, at::kDouble) + 1.0, 3).repeat({16}).contiguous();
    for (const ChannelStatistic statistic : {ChannelStatistic::MinMax, ChannelStatistic::AbsMax}) {
      const ChannelGroups groups = cluster_channels({-widths, widths, {}}, statistic, 16, 3);
      QCOMPARE(groups.groups(), std::int64_t{4});
      for (std::int64_t i = 0; i < 4; ++i) {
        const std::int32_t kind[] = {0, 2, 1, 3};
        for (std::int32_t place = groups.start[i]; place < groups.start[i + 1]; ++place) {
          QCOMPARE(groups.order[place] % 4, kind[i]);
          if (place > groups.start[i]) QVERIFY(groups.order[place] > groups.order[place - 1]);
        }
      }
    }
  }

  /// Channels of one range but two shapes: spread over it, or at its ends. Only histograms tell them apart.
  void histogramsTellShapesApart() {
    std::mt19937_64 generator(14);
    at::Tensor key = at::empty({1, 400, 64}, at::kFloat);
    float* const data = key.data_ptr<float>();
    for (std::int64_t i = 0; i < key.numel(); ++i) {
      const float share = static_cast<float>(generator() % 2001) / 1000.0f - 1.0f;
      data[i] = i % 2 == 0 ? share : share < 0.0f ? -1.0f : 1.0f;
    }
    const Setup setup = setup_of("skvq:g=32,statistic=histogram");
    const KvLayerArtifact artifact = kv_method_entry(setup).calibrate_layer(
        {.query = {}, .key = key, .value = key, .shape = {.heads = 1, .kv_heads = 1, .head_dim = 64}}, setup.params, 3);
    const ChannelGroups groups = ChannelGroups::from(artifact.at("k_order"), artifact.at("k_start"), "keys");
    QCOMPARE(groups.groups(), std::int64_t{2});
    QCOMPARE(groups.start[1], 32);
    for (std::int32_t place = 0; place < 64; ++place)
      QCOMPARE(groups.order[place] % 2, groups.order[place < 32 ? 0 : 32] % 2);
  }

  void calibrationLowersTheErrorAndRepeats() {
    std::mt19937_64 generator(11);
    at::Tensor key = test::random_kv(generator, {2, 400, 64}), value = test::random_kv(generator, {2, 400, 64});
    const at::Tensor spread = at::exp(at::randn({2, 1, 64}, at::detail::createCPUGenerator(5)) * 1.5);
    key = key * spread;
    value = value * spread.flip(2);
    const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 64};
    const KvPrompt sample{test::random_kv(generator, {4, 400, 64}) * 0.2, key, value, shape};
    const auto error = [&](const std::string& text) {
      const auto method = make_kv_method_for(setup_of(text), sample, 7);
      return (method->quantize(value, KvRole::Value, {}).values - value).square().mean().item<double>();
    };
    const double plain = error("skvq:g=32,reorder=false,clip=1"), ordered = error("skvq:g=32,clip=1");
    QVERIFY2(ordered < 0.6 * plain, (std::to_string(ordered) + " " + std::to_string(plain)).c_str());
    QVERIFY(error("skvq:g=32,clip=1,statistic=absmax") < plain);
    QVERIFY(error("skvq:g=32,reorder=false,clip=1,smooth=true") < plain);
    const Setup search = setup_of("skvq:g=32,clip=search");
    const KvLayerArtifact first = kv_method_entry(search).calibrate_layer(sample, search.params, 7),
                          second = kv_method_entry(search).calibrate_layer(sample, search.params, 7);
    for (const auto& [name, tensor] : first) QVERIFY(tensor.equal(second.at(name)));
    QCOMPARE(first.at("k_clip").numel(), std::int64_t{1});
    const Setup by_group = setup_of("skvq:g=32,clip=search_groups");
    QCOMPARE(kv_method_entry(by_group).calibrate_layer(sample, by_group.params, 7).at("v_clip").numel(),
             std::int64_t{4});
  }

  void anArtifactOfOtherParametersIsRefused() {
    KvArtifact artifact{.method = "skvq", .setup = "skvq:group_size=64", .model_fingerprint = "m"};
    std::mt19937_64 generator(12);
    KvLayerArtifact layer;
    add_groups(generator, "k_", 128, 2, layer);
    add_groups(generator, "v_", 128, 2, layer);
    artifact.layers = {layer};
    make_kv_plan(setup_of("skvq:group_size=64,k=4,w=16,clip=0.9"), 1, &artifact);
    for (const char* other : {"skvq:group_size=32", "skvq:group_size=64,pre_rope=false",
                              "skvq:group_size=64,statistic=absmax", "skvq:group_size=64,clip=search"}) {
      const std::string message = message_of([&] { make_kv_plan(setup_of(other), 1, &artifact); });
      QVERIFY2(message.find("was made for 'skvq:group_size=64'") != std::string::npos, message.c_str());
    }
  }

  void keptTokensStayExact() {
    std::mt19937_64 generator(13);
    const CacheShape shape{.heads = 4, .kv_heads = 2, .head_dim = 32};
    const at::Tensor key = test::random_kv(generator, {2, 60, 32}), value = test::random_kv(generator, {2, 60, 32});
    at::Tensor query = test::random_kv(generator, {4, 60, 32}) * 0.01;
    const KvPrompt prompt{query, key, value, shape};
    for (const char* rule : {"h2o", "random"}) {
      const auto method = make_kv_method(setup_of("k2-v2-g32-w10-" + std::string(rule) + "0.6"));
      QVERIFY(!method->cannot_stream().empty());
      const QuantizedTensor result = method->quantize_prompt(prompt, KvRole::Value, {});
      const at::Tensor kept = result.full_precision.all(2).all(0);
      QCOMPARE(kept.sum().item<std::int64_t>(), std::int64_t{20});  // 40 % of the 50 tokens behind the window
      const at::Tensor index = kept.nonzero().squeeze(1);
      QVERIFY(result.values.index_select(1, index).equal(method->held_in_full_precision(value).index_select(1, index)));
    }
    // With a query that looks at one token, h2o keeps that token.
    const auto method = make_kv_method(setup_of("k2-v2-g32-w10-h2o0.98"));
    query = key.select(1, 17).repeat_interleave(2, 0).unsqueeze(1).expand({4, 60, 32}) * 3;
    const QuantizedTensor one = method->quantize_prompt({query.contiguous(), key, value, shape}, KvRole::Key, {});
    QVERIFY(one.full_precision.select(1, 17).all().item<bool>());
  }
};

QTEST_APPLESS_MAIN(TestSkvq)
#include "tst_skvq.moc"
