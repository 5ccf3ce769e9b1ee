#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <QTemporaryDir>
#include <QTest>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <functional>
#include <random>
#include <thread>

#include "backend/evaluation/calibration_windows.h"
#include "backend/method_registry.h"
#include "backend/methods/lkd.h"
#include "backend/methods/packed_linear.h"
#include "backend/methods/zeroquant_linear.h"
#include "backend/methods/zeroquant_method.h"
#include "backend/model/variant.h"
#include "backend/types/error.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

std::shared_ptr<const Model> small_model() {
  static const auto model = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, {});
  return model;
}

std::shared_ptr<const Model> sample_model() {
  static const auto model = Model::load(QS_RESOURCES "/sample/sample-hf", {}, {});
  return model;
}

std::vector<std::int64_t> text_ids(std::int64_t count) {
  std::vector<std::int64_t> ids = {1};
  while (static_cast<std::int64_t>(ids.size()) < count) ids.push_back((ids.back() * 37 + 11) % 509 + 3);
  return ids;
}

CalibrationWindows small_windows(std::int64_t count = 6, std::int64_t seqlen = 32) {
  return calibration_windows(*small_model(), text_ids(600), "test.txt", "0123", count, seqlen, 0);
}

std::unique_ptr<WeightMethod> method(const std::string& params) {
  return make_weight_method(*parse_weight_setup("zeroquant:" + params));
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

bool says(const std::string& message, const char* part) { return message.find(part) != std::string::npos; }

at::Tensor random_matrix(std::int64_t rows, std::int64_t columns, std::uint32_t seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  at::Tensor matrix = at::empty({rows, columns}, at::kFloat);
  float* const data = matrix.data_ptr<float>();
  for (std::int64_t i = 0; i < matrix.numel(); ++i) data[i] = normal(generator);
  return matrix;
}

double relative(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual - expected).norm().item<double>() / expected.norm().item<double>();
}

at::Tensor row(std::vector<float> values) { return at::tensor(values).view({1, -1}); }

bool holds(const at::Tensor& values, std::vector<float> expected) {
  return at::allclose(values.view({-1}), at::tensor(expected), 1e-6, 1e-7);
}

RunQuantizer grid(RunGrid kind, int bits, ZeroQuantScale rule = ZeroQuantScale::Code) {
  return {bits, kind, rule, ScaleType::F32};
}

at::Tensor logits_of(const Model& model, const DecoderWeights& weights) {
  FullPrecisionWindow attention(weights.attention);
  return forward(model.spec(), weights, RaggedBatch::single(text_ids(40)), attention, LogitRows::All, nullptr, {});
}

bool same_block(const Model& model, const DecoderWeights& a, const DecoderWeights& b, std::size_t layer) {
  DecoderBlock left = a.blocks[layer], right = b.blocks[layer];
  const auto x = linear_slots(left, 0), y = linear_slots(right, 0);
  for (std::size_t i = 0; i < x.size(); ++i)
    if (!(*x[i].op)->weight().equal((*y[i].op)->weight())) return false;
  return left.input_norm.weight.equal(right.input_norm.weight) && model.spec().layers > 0;
}

/// An LKD run on the small model, quick and with a rate that learns within a few steps.
struct Run {
  CalibrationWindows texts = small_windows();
  WeightContext context;
  std::vector<LayerProgress> told;
  std::string params = "bits_attn=4,bits_mlp=3,bits_a=8,lkd=true,lkd_steps=6,lkd_lr=0.0005,lkd_batch=3";

  Run() {
    context.windows = &texts;
    context.on_linear = [this](const LayerProgress& progress) { told.push_back(progress); };
  }
  Run(const Run&) = delete;
  DecoderWeights go(const JobContext& job = {}) { return method(params)->apply(*small_model(), context, job); }
};

}  // namespace

class TestZeroQuant : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  // Grids

  void theLargestValueIsClippedByTheCodesRuleOnly() {
    // s = 2 * 1 / 8: the codes -4 ... 3 stand for -1 ... 0.75.
    const RunCodes code = quantize_runs(row({-1.0f, 0.5f, 1.0f, 0.1f}), grid(RunGrid::Symmetric, 3));
    QVERIFY(holds(code.values, {-1.0f, 0.5f, 0.75f, 0.0f}));
    QVERIFY(code.codes.equal(at::tensor({0, 6, 7, 4}, at::kByte).view({1, 4})));
    const RunCodes paper =
        quantize_runs(row({-1.0f, 0.5f, 1.0f, 0.1f}), grid(RunGrid::Symmetric, 3, ZeroQuantScale::Paper));
    QVERIFY(holds(paper.values, {-1.0f, 2.0f / 3.0f, 1.0f, 0.0f}));
  }

  void asymmetricRangesBeginAtAMultipleOfTheScale() {
    // s = 8 / 8, o = rne(2.4) = 2; 10.4 would be code 8 and is clipped to 7.
    const RunCodes codes = quantize_runs(row({2.4f, 3.0f, 10.4f}), grid(RunGrid::Asymmetric, 3));
    QVERIFY(holds(codes.values, {2.0f, 3.0f, 9.0f}));
    QCOMPARE(codes.zero_point.item<double>(), -2.0);
  }

  void ternaryAndBinaryKeepMeans() {
    // mean 1.25, threshold 0.875: 2 and 2.5 stay, with their mean.
    QVERIFY(holds(quantize_runs(row({-2.0f, 2.5f, 0.0f, 0.5f}), grid(RunGrid::Ternary, 2)).values,
                  {-2.25f, 2.25f, 0.0f, 0.0f}));
    QVERIFY(holds(quantize_runs(row({-2.0f, 2.5f, 0.0f, 0.5f}), grid(RunGrid::Binary, 1)).values,
                  {-1.25f, 1.25f, 1.25f, 1.25f}));
  }

  void zeroAndConstantRunsAreExact() {
    for (const auto& [kind, bits] :
         {std::pair{RunGrid::Symmetric, 4}, {RunGrid::Asymmetric, 4}, {RunGrid::Ternary, 2}, {RunGrid::Binary, 1}}) {
      const at::Tensor zeros = at::zeros({2, 8});
      QVERIFY(quantize_runs(zeros, grid(kind, bits)).values.equal(zeros));
    }
    for (const float value : {3.7f, -3.7f, 1e-30f})
      QVERIFY(holds(quantize_runs(at::full({1, 8}, value), grid(RunGrid::Asymmetric, 4)).values,
                    std::vector<float>(8, value)));
    QVERIFY(
        holds(quantize_runs(at::full({1, 8}, -3.5f), grid(RunGrid::Binary, 1)).values, std::vector<float>(8, -3.5f)));
    QVERIFY(quantize_tokens(at::zeros({3, 4}), {.bits = 8}).equal(at::zeros({3, 4})));
  }

  void runsMayStraddleRows() {
    const at::Tensor w = random_matrix(6, 20, 1);
    const ZeroQuantWeight quantizer{4, true, ZeroQuantScale::Code, ScaleType::F32, {RunLayout::Kind::NumGroups, 5}};
    const ZeroQuantCodes codes = quantize_zeroquant(w, quantizer, "w");
    QCOMPARE(codes.run_length, std::int64_t{24});
    const float* const flat = w.data_ptr<float>();
    for (std::int64_t run = 0; run < 5; ++run) {
      double largest = 0.0;
      for (std::int64_t i = run * 24; i < (run + 1) * 24; ++i) largest = std::max<double>(largest, std::fabs(flat[i]));
      const double scale = largest / 8.0;
      for (std::int64_t i = run * 24; i < (run + 1) * 24; ++i) {
        const double expected = std::clamp(std::nearbyint(flat[i] / scale), -8.0, 7.0) * scale;
        QVERIFY(std::fabs(codes.values.view({-1})[i].item<double>() - expected) < 1e-5);
      }
    }
  }

  void groupsThatDoNotDivideNameTheNearest() {
    const RunLayout groups{RunLayout::Kind::NumGroups, 50};
    QVERIFY(
        says(message_of([&] { groups.length(16, 24, "layers.0.mlp.up_proj"); }),
             "num_groups=50 does not divide the 384 weights of 'layers.0.mlp.up_proj'. The nearest that does is 48"));
    const RunLayout sizes{RunLayout::Kind::GroupSize, 10};
    QVERIFY(says(message_of([&] { sizes.length(16, 24, "w"); }), "The nearest that does is 8"));
    // The model's weights are 64 x 64, 32 x 64, 172 x 64 and 64 x 172.
    const std::string message = message_of([] { method("num_groups=100")->apply(*small_model(), {}, {}); });
    QVERIFY2(says(message, "layers.0.self_attn.q_proj") && says(message, "nearest that does is"), message.c_str());
  }

  void contradictionsAreRefused() {
    QVERIFY(says(message_of([] { method("num_groups=4,group_size=8"); }), "contradict"));
    QVERIFY(says(message_of([] { method("groups=num_groups"); }), "num_groups=64"));
    QVERIFY(says(message_of([] { method("bits_mlp=12"); }), "1 to 8, or 16"));
    QVERIFY(says(message_of([] { method("bits_mlp=2,sym=false"); }), "at least 3 bits"));
    QVERIFY(says(message_of([] { method("lkd_layers=0/x"); }), "cannot be read"));
  }

  // Activations

  void tokensHaveTheirOwnRange() {
    const at::Tensor x = random_matrix(5, 12, 2) * at::tensor({0.1f, 1.0f, 10.0f, 100.0f, 1000.0f}).view({5, 1});
    const at::Tensor seen = quantize_tokens(x, {.bits = 8});
    for (std::int64_t token = 0; token < 5; ++token) {
      const double scale = x[token].abs().max().item<double>() / 128.0;
      const double error = (seen[token] - x[token]).abs().max().item<double>();
      QVERIFY(error <= scale * 1.0001);  // half a step, a whole one where the maximum is clipped
      QVERIFY(error > 0.0);
    }
    const at::Tensor asymmetric = quantize_tokens(x.abs() + 5.0, {.bits = 8, .symmetric = false});
    QVERIFY(relative(asymmetric, x.abs() + 5.0) < 0.01);
  }

  void trackedRangesMoveSlowly() {
    RangeTracker tracker;
    tracker.see(at::tensor({-1.0f, 3.0f}));
    QCOMPARE(tracker.range().max, 3.0);
    tracker.see(at::tensor({-2.0f, 1.0f}));
    QVERIFY(std::fabs(tracker.range().min - -1.05) < 1e-12 && std::fabs(tracker.range().max - 2.9) < 1e-12);
    const at::Tensor seen = quantize_in_range(at::tensor({-9.0f, 0.0f, 9.0f}), {-1.0, 2.0}, {.bits = 8});
    QVERIFY(holds(seen, {-2.0f, 0.0f, 2.0f * 127.0f / 128.0f}));  // clipped at both ends
  }

  // Execution

  void packedEqualsSimulated_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("kind");
    QTest::addColumn<qint64>("size");
    QTest::addColumn<bool>("symmetric");
    QTest::addColumn<int>("bits_a");
    for (const int bits : {1, 2, 3, 4, 5, 8}) {
      for (const int bits_a : {16, 8, 4}) {
        QTest::addRow("%d bits, rows, A%d", bits, bits_a) << bits << 0 << qint64{0} << true << bits_a;
        QTest::addRow("%d bits, groups of 16, A%d", bits, bits_a) << bits << 1 << qint64{16} << true << bits_a;
        QTest::addRow("%d bits, 12 straddling runs, A%d", bits, bits_a) << bits << 2 << qint64{12} << true << bits_a;
        if (bits >= 3)
          QTest::addRow("%d bits, 12 asymmetric runs, A%d", bits, bits_a) << bits << 2 << qint64{12} << false << bits_a;
      }
    }
  }
  void packedEqualsSimulated() {
    QFETCH(int, bits);
    QFETCH(int, kind);
    QFETCH(qint64, size);
    QFETCH(bool, symmetric);
    QFETCH(int, bits_a);
    const ZeroQuantWeight quantizer{
        bits, symmetric, ZeroQuantScale::Code, ScaleType::F16, {static_cast<RunLayout::Kind>(kind), size}};
    const TokenQuantization tokens{.bits = bits_a};
    // 40 x 48 in 12 runs of 160: three rows and a third.
    const at::Tensor w = random_matrix(40, 48, static_cast<std::uint32_t>(bits)), bias = random_matrix(1, 40, 7)[0];
    const ZeroQuantCodes codes = quantize_zeroquant(w, quantizer, "w");
    const auto simulated =
        make_zeroquant_linear(codes, quantizer, bias, tokens, WeightExecution::Simulated, at::kFloat);
    const auto packed = make_zeroquant_linear(codes, quantizer, bias, tokens, WeightExecution::Packed, at::kFloat);
    QVERIFY(packed->packed() && !simulated->packed());
    QVERIFY(at::allclose(packed->weight(), simulated->weight(), 1e-6, 1e-7));
    for (const std::int64_t count : {1, 3, 33}) {
      const at::Tensor x = random_matrix(count, 48, 11);
      const double error = relative(packed->apply(x), simulated->apply(x));
      QVERIFY2(error < 1e-5, qPrintable(QString::number(error)));
    }
    double bytes = static_cast<double>(packed->bytes() - bias.numel() * 4);
    const auto* own = dynamic_cast<const ZeroQuantLinear*>(packed.get());
    if (own && own->form() == ZeroQuantLinear::Form::Int8) bytes -= 40 * 4;  // sums of the rows' codes
    const double formula = quantizer.effective_bits(40, 48) * 40 * 48 / 8.0;
    QVERIFY2(bytes >= formula - 1e-6 && bytes < formula + 1.0, qPrintable(QString("%1, %2").arg(bytes).arg(formula)));
  }

  void eightBitRowsAreMultipliedInIntegers() {
    const ZeroQuantWeight quantizer{};
    const ZeroQuantCodes codes = quantize_zeroquant(random_matrix(24, 32, 5), quantizer, "w");
    const auto linear = make_zeroquant_linear(codes, quantizer, {}, {.bits = 8}, WeightExecution::Packed, at::kFloat);
    const auto* own = dynamic_cast<const ZeroQuantLinear*>(linear.get());
    QVERIFY(own && own->form() == ZeroQuantLinear::Form::Int8);
    const auto alone = make_zeroquant_linear(codes, quantizer, {}, {}, WeightExecution::Packed, at::kFloat);
    QVERIFY(dynamic_cast<const PackedLinear*>(alone.get()) != nullptr);
  }

  void widthsFollowTheModule() {
    const auto made = method("bits_attn=8,bits_mlp=4");
    const DecoderWeights weights = made->apply(*small_model(), {}, {});
    DecoderWeights plain = small_model()->weights(), copy = weights;
    const auto before = linear_slots(plain), after = linear_slots(copy);
    double bits = 0.0, elements = 0.0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      const bool mlp = before[i].name.find("mlp") != std::string::npos;
      const double error = relative((*after[i].op)->weight(), (*before[i].op)->weight());
      QVERIFY2(mlp ? error > 0.05 && error < 0.25 : error > 0.0 && error < 0.02, before[i].name.c_str());
      const double size = static_cast<double>((*before[i].op)->weight().numel());
      bits += size * ((mlp ? 4.0 : 8.0) + 16.0 / static_cast<double>((*before[i].op)->in_features()));
      elements += size;
    }
    QVERIFY(std::fabs(weights.measured_bits - bits / elements) < 1e-9);
    const QuantizedTensor attention = made->quantize_weight(random_matrix(8, 16, 3), "model.layers.0.self_attn.q_proj");
    QCOMPARE(attention.levels, std::int64_t{256});
    QCOMPARE(made->quantize_weight(random_matrix(8, 16, 3), "model.layers.0.mlp.up_proj").levels, std::int64_t{16});
  }

  void packedModelGivesTheLogitsOfTheSimulated() {
    for (const char* params : {"bits_a=8", "num_groups=16", "bits_mlp=2,bits_a=8", "bits_attn=16,bits_a=8"}) {
      WeightContext context;
      const at::Tensor simulated = logits_of(*small_model(), method(params)->apply(*small_model(), context, {}));
      context.execution = WeightExecution::Packed;
      const at::Tensor packed = logits_of(*small_model(), method(params)->apply(*small_model(), context, {}));
      // A last-digit difference in front of a rounding step moves single activations by one step.
      QVERIFY2(relative(packed, simulated) < 5e-3, params);
    }
  }

  void onlyTheLayersOfTheContextAreQuantized() {
    WeightContext context;
    context.layers = {{1, 2}};
    const DecoderWeights weights = method("bits_a=8")->apply(*small_model(), context, {});
    for (std::size_t layer = 0; layer < weights.blocks.size(); ++layer)
      QCOMPARE(same_block(*small_model(), weights, small_model()->weights(), layer), layer != 1 && layer != 2);
  }

  // Distillation

  void adamFoldsTheBiasCorrectionIntoTheStep() {
    const at::Tensor value = at::tensor({1.0f, -2.0f}).requires_grad_(true);
    LkdAdamW optimizer({{value, value, true}}, 0.1, 0.5);
    std::vector<double> p = {1.0, -2.0}, m = {0.0, 0.0}, v = {0.0, 0.0};
    for (int step = 1; step <= 5; ++step) {
      (value.square().sum() * 0.5).backward();  // the gradient is the value
      optimizer.step({});
      for (std::size_t i = 0; i < 2; ++i) {
        const double g = p[i];
        m[i] = 0.9 * m[i] + 0.1 * g;
        v[i] = 0.999 * v[i] + 0.001 * g * g;
        p[i] -=
            0.1 * std::sqrt(1 - std::pow(0.999, step)) / (1 - std::pow(0.9, step)) * m[i] / (std::sqrt(v[i]) + 1e-6);
        p[i] -= 0.1 * 0.5 * p[i];
        QVERIFY(std::fabs(value[static_cast<std::int64_t>(i)].item<double>() - p[i]) < 1e-5);
      }
    }
  }

  void gradientsPassTheRounding() {
    const at::AutoGradMode gradients(true);
    const at::Tensor x = random_matrix(2, 6, 4).requires_grad_(true);
    const at::Tensor y = straight_through_tokens(x, {.bits = 4});
    QVERIFY(y.equal(quantize_tokens(x.detach(), {.bits = 4})));
    y.backward(at::full({2, 6}, 3.0f));
    QVERIFY(x.grad().equal(at::full({2, 6}, 3.0f)));  // also of the clipped maxima
  }

  void attentionWithoutAMaskSeesLaterTokens() {
    AttentionCall call;
    call.query = random_matrix(4 * 3, 8, 1).view({4, 3, 8});
    call.key = random_matrix(2 * 3, 8, 2).view({2, 3, 8});
    call.value = random_matrix(2 * 3, 8, 3).view({2, 3, 8});
    const at::Tensor output = UnmaskedWindow().attend(call);
    for (std::int64_t head = 0; head < 4; ++head) {
      const at::Tensor scores = at::mm(call.query[head], call.key[head / 2].t()) / std::sqrt(8.0);
      QVERIFY(at::allclose(output[head], at::mm(at::softmax(scores, -1), call.value[head / 2]), 1e-5, 1e-6));
    }
  }

  void distillationLowersTheLossOnTheSample() {
    const Setup setup = *parse_weight_setup(
        "zeroquant:bits_attn=4,bits_mlp=3,bits_a=8,lkd=true,lkd_layers=0/2,lkd_steps=10,lkd_lr=0.0006,lkd_batch=3,"
        "nsamples=6,seqlen=48");
    const CalibrationWindows texts =
        calibration_windows(*sample_model(), read_text(QS_RESOURCES "/texts/sample-valid.txt"), setup);
    std::vector<LayerProgress> told;
    WeightContext context;
    context.windows = &texts;
    context.on_linear = [&](const LayerProgress& progress) { told.push_back(progress); };
    const DecoderWeights distilled = make_weight_method(setup)->apply(*sample_model(), context, {});
    QCOMPARE(told.size(), std::size_t{2});
    QCOMPARE(told[0].linear, std::string("layers.0.block"));
    QCOMPARE(told[1].linear, std::string("layers.2.block"));
    for (const LayerProgress& block : told) {
      QVERIFY2(block.loss < 0.8 * block.rtn_loss, qPrintable(QString("%1 of %2").arg(block.loss).arg(block.rtn_loss)));
      QVERIFY(block.loss > 0.0 && !block.notes.empty());
    }
    // Blocks that are not chosen are those of rounding alone, and the others are not.
    const DecoderWeights rounded = method("bits_attn=4,bits_mlp=3,bits_a=8")->apply(*sample_model(), {}, {});
    for (std::size_t layer = 0; layer < rounded.blocks.size(); ++layer)
      QCOMPARE(same_block(*sample_model(), distilled, rounded, layer), layer != 0 && layer != 2);
  }

  void distilledBlocksArePackedToo() {
    Run run;
    const at::Tensor simulated = logits_of(*small_model(), run.go());
    run.context.execution = WeightExecution::Packed;
    const DecoderWeights packed = run.go();
    QVERIFY(packed.blocks[0].linear(LinearKind::Down).packed());
    QVERIFY(relative(logits_of(*small_model(), packed), simulated) < 5e-3);
  }

  void theTeacherIsNeverTheStudent() {
    // Distilling block 1 alone or behind block 0 gives the same block 1.
    Run both, alone;
    both.params += ",lkd_layers=0-1";
    alone.params += ",lkd_layers=1";
    const DecoderWeights first = both.go(), second = alone.go();
    QVERIFY(same_block(*small_model(), first, second, 1));
    QVERIFY(!same_block(*small_model(), first, second, 0));
  }

  void theReferenceDistilsWithoutAMask() {
    Run masked, unmasked;
    masked.params += ",lkd_layers=1";
    unmasked.params += ",lkd_layers=1,compat_reference=true";
    QVERIFY(!same_block(*small_model(), masked.go(), unmasked.go(), 1));
    QVERIFY(unmasked.told[0].rtn_loss != masked.told[0].rtn_loss);
  }

  void ratesMayFollowTheLoss() {
    Run run;
    run.params = "bits_attn=4,bits_mlp=3,bits_a=8,lkd=true,lkd_steps=6,lkd_layers=last,lr_scale=loss,lkd_lr=1e-5";
    run.go();
    QVERIFY(run.told[0].loss < run.told[0].rtn_loss);
  }

  void finishedBlocksAreTakenFromTheCheckpoint() {
    const QTemporaryDir folder;
    Run whole, broken, resumed;
    const DecoderWeights expected = whole.go();
    broken.context.checkpoint = resumed.context.checkpoint = folder.path().toStdString();
    std::stop_source stop;
    broken.context.on_linear = [&](const LayerProgress& progress) {
      if (progress.layer == 1) stop.request_stop();
    };
    QVERIFY_EXCEPTION_THROWN(broken.go(JobContext(stop.get_token(), {})), Cancelled);
    QVERIFY(fs::exists(fs::path(folder.path().toStdString()) / "layer-0001.safetensors"));
    QVERIFY(!fs::exists(fs::path(folder.path().toStdString()) / "layer-0002.safetensors"));
    const DecoderWeights weights = resumed.go();
    QVERIFY(resumed.told[0].resumed && resumed.told[1].resumed && !resumed.told[2].resumed);
    for (std::size_t layer = 0; layer < weights.blocks.size(); ++layer)
      QVERIFY(same_block(*small_model(), weights, expected, layer));
    Run other;
    other.params += ",lkd_lr=0.001";
    other.params.erase(other.params.find("lkd_lr=0.0005,"), 14);
    other.context.checkpoint = resumed.context.checkpoint;
    QVERIFY(says(message_of([&] { other.go(); }), "made from something else"));
  }

  void cancelStopsInsideAStepAndLeavesNothing() {
    const QTemporaryDir folder;
    Run run;
    run.texts = small_windows(8, 256);
    run.params = "bits_a=8,lkd=true,lkd_steps=100000,lkd_batch=8";
    run.context.checkpoint = folder.path().toStdString();
    std::stop_source stop;
    using Clock = std::chrono::steady_clock;
    Clock::time_point asked;
    std::jthread canceller([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      asked = Clock::now();
      stop.request_stop();
    });
    bool cancelled = false;
    try {
      run.go(JobContext(stop.get_token(), {}));
    } catch (const Cancelled&) {
      cancelled = true;
    }
    canceller.join();
    QVERIFY(cancelled);
    QVERIFY(Clock::now() - asked < std::chrono::seconds(1));
    for (const auto& entry : fs::directory_iterator(folder.path().toStdString()))
      QCOMPARE(entry.path().filename().string(), std::string("setup.json"));
    QVERIFY(run.told.empty());
  }

  void wrongDistillationsAreRefused() {
    Run run;
    run.context.windows = nullptr;
    QVERIFY(says(message_of([&] { run.go(); }), "Name a text"));
    Run beyond;
    beyond.params += ",lkd_layers=3-9";
    QVERIFY(says(message_of([&] { beyond.go(); }), "has 0 to 4"));
    Run diverging;
    diverging.params = "lkd=true,lkd_lr=1,lkd_steps=30,bits_a=8,lkd_layers=0";
    const std::string message = message_of([&] { diverging.go(); });
    QVERIFY(message.empty() || says(message, "lkd_lr"));
    QVERIFY(!message.empty() || says(diverging.told[0].notes[0], "did not fall"));
  }

  void lkdAloneNeedsAText() {
    QVERIFY(!weight_calibration_needs(*parse_weight_setup("zeroquant:bits_a=8")).any());
    QVERIFY(weight_calibration_needs(*parse_weight_setup("zeroquant:lkd=true")).token_windows);
  }
};

QTEST_GUILESS_MAIN(TestZeroQuant)
#include "tst_zeroquant.moc"
