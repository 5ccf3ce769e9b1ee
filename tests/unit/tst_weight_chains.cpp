#include <ATen/ATen.h>

#include <QTemporaryDir>
#include <QTest>
#include <filesystem>
#include <functional>
#include <stop_token>

#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/calibration_windows.h"
#include "backend/method_registry.h"
#include "backend/methods/activation_quantization.h"
#include "backend/methods/gptq_method.h"
#include "backend/methods/packed_linear.h"
#include "backend/methods/smoothing.h"
#include "backend/model/variant.h"
#include "backend/types/error.h"

using namespace qs;
namespace fs = std::filesystem;

namespace {

std::shared_ptr<const Model> model() {
  static const std::shared_ptr<const Model> loaded = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, {});
  return loaded;
}

std::vector<std::int64_t> text_ids(std::int64_t count) {
  std::vector<std::int64_t> ids = {1};
  while (static_cast<std::int64_t>(ids.size()) < count) ids.push_back((ids.back() * 37 + 11) % 509 + 3);
  return ids;
}

const Calibration& calibration() {
  static const Calibration made = calibrate(*model(), text_ids(256), 128, "test", {}, kUsualInputSample);
  return made;
}

const CalibrationWindows& windows() {
  static const CalibrationWindows made = calibration_windows(*model(), text_ids(600), "test.txt", "0123", 6, 48, 0);
  return made;
}

WeightContext context(WeightExecution execution = WeightExecution::Simulated) {
  WeightContext result;
  result.calibration = &calibration();
  result.windows = &windows();
  result.execution = execution;
  return result;
}

DecoderWeights quantized(const std::string& line, WeightContext with = context()) {
  return make_weight_method(*parse_weight_setup(line))->apply(*model(), with, {});
}

std::shared_ptr<const Variant> variant(const std::string& line, WeightExecution execution) {
  return make_variant(model(), parse_weight_setup(line), std::nullopt, context(execution), {});
}

at::Tensor logits_of(const DecoderWeights& weights) {
  FullPrecisionWindow attention(weights.attention);
  return forward(model()->spec(), weights, RaggedBatch::single(text_ids(64)), attention, LogitRows::All, nullptr, {});
}

double relative(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual - expected).norm().item<double>() / expected.norm().item<double>();
}

bool same_block(DecoderBlock a, DecoderBlock b) {
  if (!a.input_norm.weight.equal(b.input_norm.weight) || !a.mlp_norm.weight.equal(b.mlp_norm.weight)) return false;
  const std::vector<LinearSlot> left = linear_slots(a, 0), right = linear_slots(b, 0);
  for (std::size_t i = 0; i < left.size(); ++i) {
    if (!(*left[i].op)->weight().equal((*right[i].op)->weight())) return false;
    if (input_quantization(**left[i].op).bits != input_quantization(**right[i].op).bits) return false;
  }
  return left.size() == right.size();
}

bool same_weights(const DecoderWeights& a, const DecoderWeights& b) {
  for (std::size_t layer = 0; layer < a.blocks.size(); ++layer)
    if (!same_block(a.blocks[layer], b.blocks[layer])) return false;
  return true;
}

QString message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

QString refusal(const char* line) {
  return message_of([line] { parse_weight_setup(line); });
}

/// XᵀX of every linear as a plain forward pass shows it.
class PlainSums final : public TapSink {
 public:
  std::map<std::string, at::Tensor> sums;
  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    const at::Tensor wide = x.to(at::kDouble), square = at::mm(wide.t(), wide);
    at::Tensor& sum = sums[linear_name(layer, kind)];
    sum = sum.defined() ? sum + square : square;
  }
};

at::Tensor hessian_of(const DecoderWeights& weights, const std::string& name) {
  PlainSums taps;
  FullPrecisionWindow attention;
  for (const auto& window : windows().windows)
    forward(model()->spec(), weights, RaggedBatch::single(window), attention, LogitRows::None, &taps, {});
  return (taps.sums.at(name) * (2.0 / static_cast<double>(windows().windows.size()))).to(at::kFloat);
}

}  // namespace

class TestWeightChains : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void init() { temporary_ = std::make_unique<QTemporaryDir>(); }

  void linesAreReadAndWritten() {
    for (const char* line : {"smoothquant:alpha=0.6+gptq:bits=3,group_size=32", "smoothquant+rtn:bits=8",
                             "smoothquant:bits_a=16+spqr", "layers:0-1=gptq:bits=4;*=gptq:bits=3",
                             "layers:0=none;1-2=smoothquant:alpha=0.2+gptq;*=smoothquant:alpha=0.8"}) {
      const std::string again = format_setup(*parse_weight_setup(line), weight_method_infos());
      QCOMPARE(*parse_weight_setup(again), *parse_weight_setup(line));
    }
    QCOMPARE(format_setup(*parse_weight_setup("smoothquant:alpha=0.5+gptq:bits=4"), weight_method_infos()),
             std::string("smoothquant+gptq"));
  }

  void whatDoesNotFitSaysSo_data() {
    QTest::addColumn<QString>("line");
    QTest::addColumn<QString>("says");
    QTest::newRow("order") << "gptq+smoothquant"
                           << "cannot follow 'gptq'";
    QTest::newRow("two that round") << "gptq+rtn"
                                    << "cannot follow 'gptq'";
    QTest::newRow("width without effect") << "smoothquant:bits_w=4+gptq"
                                          << "bits_w=4 has no effect";
    QTest::newRow("inputs twice") << "smoothquant+rtn:bits=4,bits_a=8"
                                  << "set bits_a=16 in one of them";
    QTest::newRow("windows") << "layers:0=gptq:nsamples=4;*=gptq:nsamples=8"
                             << "'nsamples' is 4 in one and 8 in another";
    QTest::newRow("attention") << "layers:0=rtn:bits=8,bits_a=8;*=none"
                               << "quantize_attention=false";
    QTest::newRow("which layers") << "layers:2-3=gptq:group_size=0;*=none"
                                  << "Layers 2-3: 'group_size' of gptq";
    QTest::newRow("twice") << "layers:0-2=rtn;2=rtn:bits=3;*=none"
                           << "name the same layers";
  }
  void whatDoesNotFitSaysSo() {
    QFETCH(QString, line);
    QFETCH(QString, says);
    const QString message = refusal(line.toUtf8().constData());
    QVERIFY2(message.contains(says), qPrintable(message));
  }

  void layersAreThoseOfTheModel() {
    QVERIFY(message_of([] { quantized("layers:0-9=rtn"); }).contains("goes beyond the model, whose layers are 0 to 4"));
    QVERIFY(message_of([] { quantized("layers:0-3=rtn"); }).contains("layer 4 has no setup"));
  }

  void needsOfAllPartsAreTold() {
    const auto needs = [](const char* line) { return weight_calibration_needs(*parse_weight_setup(line)); };
    QCOMPARE(needs("rtn"), CalibrationNeeds{});
    QCOMPARE(needs("gptq"), (CalibrationNeeds{.token_windows = true}));
    QCOMPARE(needs("smoothquant"), (CalibrationNeeds{.activation_maxima = true}));
    QCOMPARE(needs("smoothquant:alpha_rule=search"), (CalibrationNeeds{.activation_maxima = true, .input_rows = true}));
    QCOMPARE(needs("smoothquant+spqr"), (CalibrationNeeds{.activation_maxima = true, .token_windows = true}));
    QCOMPARE(needs("layers:0=smoothquant;1=gptq;*=none"),
             (CalibrationNeeds{.activation_maxima = true, .token_windows = true}));
    QVERIFY(message_of([] {
              WeightContext maxima_only = context();
              maxima_only.windows = nullptr;
              make_variant(model(), parse_weight_setup("smoothquant+gptq"), std::nullopt, maxima_only, {});
            }).contains("smoothquant+gptq' needs windows"));
    QVERIFY(message_of([] {
              WeightContext windows_only = context();
              windows_only.calibration = nullptr;
              make_variant(model(), parse_weight_setup("smoothquant+gptq"), std::nullopt, windows_only, {});
            }).contains("activation maxima"));
  }

  /// SmoothQuant is smoothing and then RTN, so the chain of the two is the method itself, to the last bit.
  void roundingBehindSmoothingIsSmoothQuant() {
    for (const WeightExecution execution : {WeightExecution::Simulated, WeightExecution::Packed}) {
      const DecoderWeights whole = quantized("smoothquant:alpha=0.6", context(execution)),
                           chain = quantized("smoothquant:alpha=0.6+rtn:bits=8", context(execution));
      QVERIFY(same_weights(whole, chain));
      QVERIFY(logits_of(chain).equal(logits_of(whole)));
      QCOMPARE(input_quantization(chain.blocks[1].linear(LinearKind::Down)).bits, 8);
    }
    const auto* packed = dynamic_cast<const PackedLinear*>(
        &quantized("smoothquant+rtn:bits=8", context(WeightExecution::Packed)).blocks[0].linear(LinearKind::Q));
    QVERIFY(packed && packed->form() == PackedLinear::Form::Int8);
  }

  /// GPTQ behind smoothing is GPTQ of the smoothed model.
  void gptqBehindSmoothingQuantizesTheSmoothedWeights() {
    const DecoderWeights smoothed =
        smooth_decoder(model()->spec(), model()->weights(), calibration(), {.alpha = 0.6}, nullptr, {});
    WeightContext behind = context();
    behind.weights = &smoothed;
    const DecoderWeights expected = quantized("gptq:bits=3,group_size=32", behind);
    QVERIFY(same_weights(quantized("smoothquant:alpha=0.6,bits_a=16+gptq:bits=3,group_size=32"), expected));

    // With quantized inputs the first block is the same, later ones see what the quantized inputs made of their own.
    const DecoderWeights inputs_too = quantized("smoothquant:alpha=0.6,bits_a=4+gptq:bits=3,group_size=32");
    const at::Tensor first = inputs_too.blocks[0].linear(LinearKind::Q).weight();
    QVERIFY(first.equal(expected.blocks[0].linear(LinearKind::Q).weight()));
    const at::Tensor later = inputs_too.blocks[3].linear(LinearKind::Up).weight();
    QVERIFY(!later.equal(expected.blocks[3].linear(LinearKind::Up).weight()));
    for (DecoderWeights copy = inputs_too; const LinearSlot& slot : linear_slots(copy))
      QCOMPARE(input_quantization(**slot.op).bits, 4);
    // 3 bits, 19 for each group of 32, and the index of groups in activation order, much in rows of 64.
    QVERIFY2(inputs_too.measured_bits > 3.5 && inputs_too.measured_bits < 4.5,
             qPrintable(QString::number(inputs_too.measured_bits)));
  }

  void packedChainsRunLikeSimulatedOnes() {
    for (const char* line : {"smoothquant:bits_a=16+gptq:bits=4,group_size=32", "smoothquant+gptq:bits=4,group_size=32",
                             "smoothquant+spqr:group_size=4,qq_group_size=4,outlier_threshold=0.3",
                             "layers:0-1=smoothquant+gptq:bits=4,group_size=32;2=none;*=rtn:bits=4"}) {
      const auto simulated = variant(line, WeightExecution::Simulated), packed = variant(line, WeightExecution::Packed);
      QVERIFY(packed->weights().blocks[0].linear(LinearKind::Up).packed());
      // A last digit in front of a rounding step moves single activations by one step of their range.
      const double error = relative(logits_of(packed->weights()), logits_of(simulated->weights()));
      QVERIFY2(error < 2e-2, qPrintable(QString("%1: %2").arg(line).arg(error)));
      QVERIFY(std::abs(packed->weight_bits() / simulated->weight_bits() - 1.0) < 0.2);
    }
  }

  void everyRangeGetsItsOwnSetup() {
    const DecoderWeights four = quantized("rtn:bits=4"), three = quantized("rtn:bits=3"),
                         mixed = quantized("layers:1,3=rtn:bits=4;2=none;*=rtn:bits=3");
    for (const std::size_t layer : {std::size_t{1}, std::size_t{3}})
      QVERIFY(same_block(mixed.blocks[layer], four.blocks[layer]));
    for (const std::size_t layer : {std::size_t{0}, std::size_t{4}})
      QVERIFY(same_block(mixed.blocks[layer], three.blocks[layer]));
    for (std::size_t i = 0; i < kLinearKinds.size(); ++i)
      QVERIFY(mixed.blocks[2].linears[i] == model()->weights().blocks[2].linears[i]);
  }

  void alphaMayDifferFromLayerToLayer() {
    const DecoderWeights low = quantized("smoothquant:alpha=0.2"), high = quantized("smoothquant:alpha=0.8"),
                         mixed = quantized("layers:0-1=smoothquant:alpha=0.2;*=smoothquant:alpha=0.8");
    for (std::size_t layer = 0; layer < mixed.blocks.size(); ++layer) {
      QVERIFY(same_block(mixed.blocks[layer], layer < 2 ? low.blocks[layer] : high.blocks[layer]));
      QVERIFY(!same_block(mixed.blocks[layer], layer < 2 ? high.blocks[layer] : low.blocks[layer]));
    }
  }

  void widthIsTheMeanOfTheLayers() {
    const double four = variant("rtn:bits=4", WeightExecution::Simulated)->weight_bits(),
                 three = variant("rtn:bits=3", WeightExecution::Simulated)->weight_bits();
    const auto mixed = variant("layers:0-1=rtn:bits=4;2=none;*=rtn:bits=3", WeightExecution::Simulated);
    QVERIFY(std::abs(mixed->weight_bits() - (2 * four + 32.0 + 2 * three) / 5.0) < 1e-9);
    const auto packed = variant("layers:0-1=rtn:bits=4;2=none;*=rtn:bits=3", WeightExecution::Packed);
    QVERIFY(std::abs(packed->weight_bits() - mixed->weight_bits()) < 0.2);
    QCOMPARE(mixed->label().weights, std::string("layers:0-1=rtn;2=none;*=rtn:bits=3"));
  }

  /// A range sees the blocks in front of it as they were quantized, and unquantized ones as they are.
  void laterRangesAreQuantizedBehindTheEarlierOnes() {
    const DecoderWeights mixed = quantized("layers:0=gptq:bits=4,group_size=32;1=none;*=gptq:bits=3,group_size=32");
    const DecoderWeights plain = quantized("gptq:bits=4,group_size=32");
    QVERIFY(same_block(mixed.blocks[0], plain.blocks[0]));
    QVERIFY(!same_block(mixed.blocks[2], plain.blocks[2]));
    DecoderWeights before = model()->weights();
    before.blocks[0] = mixed.blocks[0];
    const std::string name = linear_name(2, LinearKind::Up);
    GptqOptions options;
    options.affine.bits = 3;
    options.group_size = 32;
    options.act_order = true;
    const GptqResult expected =
        gptq(before.blocks[2].linear(LinearKind::Up).weight(), hessian_of(before, name), options, name, {});
    const at::Tensor actual = mixed.blocks[2].linear(LinearKind::Up).weight();
    QVERIFY((expected.values - actual).abs().lt(1e-6).to(at::kDouble).mean().item<double>() > 0.98);
  }

  void aPerLayerRunGoesOnWhereItWasCancelled() {
    const std::string line = "layers:0-1=smoothquant+gptq:bits=4,group_size=32;2=none;*=gptq:bits=3,group_size=32";
    const DecoderWeights expected = quantized(line);
    const fs::path folder = fs::path(temporary_->path().toStdString()) / "run";
    WeightContext cut = context();
    cut.checkpoint = folder;
    std::stop_source stop;
    cut.on_linear = [&](const LayerProgress& linear) {
      if (linear.layer == 4) stop.request_stop();
    };
    QVERIFY_THROWS_EXCEPTION(
        Cancelled,
        make_weight_method(*parse_weight_setup(line))->apply(*model(), cut, JobContext(stop.get_token(), {})));
    QVERIFY(fs::exists(folder / "layers-0-1" / "layer-0001.safetensors"));
    QVERIFY(fs::exists(folder / "layers-3-4" / "layer-0003.safetensors"));
    QVERIFY(!fs::exists(folder / "layers-3-4" / "layer-0004.safetensors"));

    std::vector<LayerProgress> progress;
    WeightContext rest = context();
    rest.checkpoint = folder;
    rest.on_linear = [&](const LayerProgress& linear) { progress.push_back(linear); };
    QVERIFY(same_weights(quantized(line, rest), expected));
    QCOMPARE(progress.size(), std::size_t{4 * 7});
    for (const LayerProgress& linear : progress) QCOMPARE(linear.resumed, linear.layer < 4);
    // The same folder serves the packed form: the codes are the same.
    rest.execution = WeightExecution::Packed;
    progress.clear();
    QVERIFY(quantized(line, rest).blocks[4].linear(LinearKind::Up).packed());
    for (const LayerProgress& linear : progress) QVERIFY(linear.resumed);

    // Blocks made behind something else do not fit.
    const QString other = message_of([&] {
      quantized("layers:0-1=smoothquant:alpha=0.6+gptq:bits=4,group_size=32;2=none;*=gptq:bits=3,group_size=32", rest);
    });
    QVERIFY2(other.contains("behind: smoothquant:") && other.contains("alpha=0.6"), qPrintable(other));
    const QString further = message_of([&] { quantized("layers:0-1=none;2=none;*=gptq:bits=3,group_size=32", rest); });
    QVERIFY2(further.contains("behind: 0-1=smoothquant") && further.contains("nothing now"), qPrintable(further));
  }

  void embeddingsAndHeadAreNeverTouched() {
    for (const char* line : {"smoothquant", "smoothquant+gptq", "layers:0=rtn;*=none", "smoothquant:extended=true"}) {
      const DecoderWeights weights = quantized(line);
      QVERIFY(weights.embedding == model()->weights().embedding);
      QVERIFY(weights.lm_head == model()->weights().lm_head);
      QVERIFY(weights.final_norm.weight.is_same(model()->weights().final_norm.weight));
    }
  }

 private:
  std::unique_ptr<QTemporaryDir> temporary_;
};

QTEST_GUILESS_MAIN(TestWeightChains)
#include "tst_weight_chains.moc"
