#include <ATen/ATen.h>

#include <QTest>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>

#include "backend/evaluation/alpha_sweep.h"
#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/python_random.h"
#include "backend/method_registry.h"
#include "backend/methods/smoothing.h"
#include "backend/model/decoder.h"
#include "backend/model/variant.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

std::shared_ptr<const Model> small_model() {
  static const std::shared_ptr<const Model> model = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, {});
  return model;
}

std::vector<std::int64_t> text_ids(std::int64_t count) {
  std::vector<std::int64_t> ids = {1};
  while (static_cast<std::int64_t>(ids.size()) < count) ids.push_back((ids.back() * 37 + 11) % 509 + 3);
  return ids;
}

const Calibration& calibration() {
  static const Calibration made = calibrate(*small_model(), text_ids(256), 128, "test", {});
  return made;
}

at::Tensor logits_of(const DecoderWeights& weights) {
  FullPrecisionWindow attention(weights.attention);
  return forward(small_model()->spec(), weights, RaggedBatch::single(text_ids(64)), attention, LogitRows::All, nullptr,
                 {});
}

WeightContext context(const Calibration* maxima, WeightExecution execution) {
  WeightContext result;
  result.calibration = maxima;
  result.execution = execution;
  return result;
}

std::unique_ptr<WeightMethod> method(const std::string& params) {
  return make_weight_method(*parse_weight_setup("smoothquant:" + params));
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

const Calibration& sampled_calibration() {
  static const Calibration made = calibrate(*small_model(), text_ids(256), 128, "test", {}, kUsualInputSample);
  return made;
}

/// Counts how often tokens are embedded.
class CountedEmbedding final : public LinearOp {
 public:
  explicit CountedEmbedding(std::shared_ptr<const LinearOp> inner) : inner_(std::move(inner)) {}
  at::Tensor apply(const at::Tensor& x) const override { return inner_->apply(x); }
  at::Tensor weight() const override { return inner_->weight(); }
  std::int64_t bytes() const override { return inner_->bytes(); }
  std::int64_t in_features() const override { return inner_->in_features(); }
  std::int64_t out_features() const override { return inner_->out_features(); }
  at::Tensor rows(const at::Tensor& ids) const override {
    ++passes;
    return inner_->rows(ids);
  }
  mutable std::atomic<int> passes = 0;

 private:
  std::shared_ptr<const LinearOp> inner_;
};

/// S1 and S2 of the pair in front of the MLP, channel by channel.
at::Tensor mlp_scale(std::int64_t layer, double alpha) {
  const DecoderBlock& block = small_model()->weights().blocks[static_cast<std::size_t>(layer)];
  const at::Tensor gate = block.linear(LinearKind::Gate).weight(), up = block.linear(LinearKind::Up).weight();
  const at::Tensor absmax = sampled_calibration().activation_absmax.at(linear_name(layer, LinearKind::Gate));
  at::Tensor scale = at::empty_like(absmax);
  for (std::int64_t j = 0; j < absmax.numel(); ++j) {
    const double a = absmax[j].item<double>();
    const double w =
        std::max({1e-5, gate.select(1, j).abs().max().item<double>(), up.select(1, j).abs().max().item<double>()});
    scale[j] = std::max(1e-5, std::pow(a, alpha) / std::pow(w, 1.0 - alpha));
  }
  return scale;
}

/// R1 to R5 on every row.
at::Tensor rounded(const at::Tensor& x, int bits) {
  const at::Tensor low = at::amin(x, {1}, true).clamp_max(0.0), high = at::amax(x, {1}, true).clamp_min(0.0);
  const double steps = std::pow(2.0, bits) - 1.0;
  const at::Tensor scale = (high - low) / steps, zero = at::round(-low / scale);
  return (at::round(x / scale).add_(zero).clamp_(0.0, steps) - zero) * scale;
}

/// Mean squared error of gate and up over the sampled inputs.
double pair_error_by_hand(std::int64_t layer, double alpha, int bits_w, int bits_a) {
  const DecoderBlock& block = small_model()->weights().blocks[static_cast<std::size_t>(layer)];
  const at::Tensor x = sampled_calibration().input_rows.at(linear_name(layer, LinearKind::Gate));
  const at::Tensor scale = mlp_scale(layer, alpha), seen = rounded(x / scale, bits_a).to(at::kDouble);
  double squares = 0.0, elements = 0.0;
  for (const LinearKind kind : {LinearKind::Gate, LinearKind::Up}) {
    const at::Tensor weight = block.linear(kind).weight();
    const at::Tensor kept = rounded(weight * scale, bits_w).to(at::kDouble);
    const at::Tensor error = at::matmul(seen, kept.t()) - at::matmul(x.to(at::kDouble), weight.to(at::kDouble).t());
    squares += error.square().sum().item<double>();
    elements += static_cast<double>(error.numel());
  }
  return squares / elements;
}

double relative(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual - expected).norm().item<double>() / expected.norm().item<double>();
}

}  // namespace

class TestSmoothQuant : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void smoothingAloneKeepsTheLogits_data() {
    QTest::addColumn<double>("alpha");
    QTest::addColumn<bool>("extended");
    for (const double alpha : {0.0, 0.5, 0.85, 1.0}) {
      for (const bool extended : {false, true})
        QTest::addRow("alpha %.2f%s", alpha, extended ? " extended" : "") << alpha << extended;
    }
  }
  void smoothingAloneKeepsTheLogits() {
    QFETCH(double, alpha);
    QFETCH(bool, extended);
    const DecoderWeights smoothed = smooth_decoder(small_model()->spec(), small_model()->weights(), calibration(),
                                                   {alpha, extended, false}, nullptr, {});
    const double error = relative(logits_of(smoothed), logits_of(small_model()->weights()));
    QVERIFY2(error < 1e-4, qPrintable(QString::number(error)));
    QVERIFY(!at::equal(smoothed.blocks[0].linear(LinearKind::Q).weight(),
                       small_model()->weights().blocks[0].linear(LinearKind::Q).weight()));
  }

  void alphaZeroGivesEveryColumnTheMaximumOne() {
    const at::Tensor w = at::randn({8, 6}, at::kFloat), absmax = at::ones({6}) * 3.0;
    const at::Tensor scale = smoothing_scales(absmax, {w}, 0.0, false).scale;
    QVERIFY(at::allclose((w * scale).abs().amax({0}), at::ones({6}), 1e-6, 1e-6));
  }

  void alphaOneGivesEveryActivationChannelTheMaximumOne() {
    const at::Tensor absmax = at::tensor({0.5f, 2.0f, 70.0f});
    const at::Tensor scale = smoothing_scales(absmax, {at::randn({4, 3}, at::kFloat)}, 1.0, false).scale;
    QVERIFY(at::allclose(absmax / scale, at::ones({3}), 1e-6, 1e-6));
  }

  void deadChannelsAreSkippedUnlessTheReferenceIsFollowed() {
    const at::Tensor absmax = at::tensor({0.0f, 1.0f}), w = at::ones({2, 2});
    QCOMPARE(smoothing_scales(absmax, {w}, 0.5, false).scale[0].item<double>(), 1.0);
    QVERIFY(smoothing_scales(absmax, {w}, 0.5, true).scale[0].item<double>() < 1.1e-5);
  }

  void aFullSetupStaysCloseToTheModel() {
    for (const char* params : {"alpha=0.5", "quantizer=absmax", "quantizer=absmax,level=O1",
                               "quantizer=absmax,level=O2", "quantizer=absmax,level=O3", "extended=true"}) {
      const DecoderWeights quantized =
          method(params)->apply(*small_model(), context(&calibration(), WeightExecution::Simulated), {});
      const double error = relative(logits_of(quantized), logits_of(small_model()->weights()));
      QVERIFY2(error > 0.0 && error < 0.2, qPrintable(QString("%1: %2").arg(params).arg(error)));
    }
  }

  void packedEqualsSimulated() {
    for (const char* params : {"alpha=0.5", "quantizer=absmax", "bits_w=4,bits_a=8"}) {
      const at::Tensor simulated =
          logits_of(method(params)->apply(*small_model(), context(&calibration(), WeightExecution::Simulated), {}));
      const at::Tensor packed =
          logits_of(method(params)->apply(*small_model(), context(&calibration(), WeightExecution::Packed), {}));
      // A last-digit difference in front of a rounding step moves single activations by one step of 1/255 of their
      // range.
      const double error = relative(packed, simulated);
      QVERIFY2(error < 5e-3, qPrintable(QString("%1: %2").arg(params).arg(error)));
    }
  }

  void missingCalibrationIsExplained() {
    const std::string message = message_of(
        [] { method("alpha=0.5")->apply(*small_model(), context(nullptr, WeightExecution::Simulated), {}); });
    QVERIFY(message.find("activation maxima") != std::string::npos);
  }

  void calibrationOfAnotherWidthIsRefused() {
    Calibration other = calibration();
    other.activation_absmax["layers.0.self_attn.q_proj"] = at::ones({10});
    const std::string message = message_of(
        [&] { method("alpha=0.5")->apply(*small_model(), context(&other, WeightExecution::Simulated), {}); });
    QVERIFY(message.find("layers.0.self_attn.q_proj") != std::string::npos);
  }

  void staticRangesNeedAbsmax() {
    QVERIFY(message_of([] { method("level=O3"); }).find("quantizer=absmax") != std::string::npos);
  }

  void layerSweepReportsEveryPairAndReusesPoints() {
    AlphaSweepRequest request;
    request.alphas = {0.0, 0.5, 1.0};
    request.bits = {{8, 8}, {4, 4}};
    request.model_mode = false;
    request.calibration_ids = text_ids(64);
    int reports = 0;
    const AlphaSweepResult first =
        alpha_sweep(small_model(), calibration(), request, nullptr, [&](const AlphaSweepResult&) { ++reports; }, {});
    QCOMPARE(reports, 6);
    QCOMPARE(first.schemes.size(), std::size_t{2});
    for (const AlphaPoint& point : first.schemes[0].points) {
      QCOMPARE(static_cast<std::int64_t>(point.layer_mse.size()), small_model()->info().layers * 2);
      QVERIFY(point.state == AlphaPoint::State::Done && point.value > 0.0);
    }
    QVERIFY(first.schemes[1].points[1].value > first.schemes[0].points[1].value);
    const AlphaSweepResult second = alpha_sweep(small_model(), calibration(), request, &first, {}, {});
    QVERIFY(second.schemes[0].points[2].state == AlphaPoint::State::Cached);
    QCOMPARE(second.schemes[0].points[2].value, first.schemes[0].points[2].value);
  }

  void sampledInputsAreThoseOfTheDrawnTokens() {
    const std::vector<std::int64_t> ids = text_ids(200);
    const Calibration sampled = calibrate(*small_model(), ids, 64, "test", {}, {24, 7});
    std::vector<std::int64_t> drawn = PythonRandom(7).sample(200, 24);
    std::sort(drawn.begin(), drawn.end());
    struct Sink final : TapSink {
      std::vector<at::Tensor> passes;
      void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
        if (layer == 2 && kind == LinearKind::Gate) passes.push_back(x.clone());
      }
    } sink;
    FullPrecisionWindow attention;
    for (std::size_t begin = 0; begin < ids.size(); begin += 64) {
      const std::vector<std::int64_t> part(ids.begin() + begin, ids.begin() + std::min<std::size_t>(begin + 64, 200));
      forward(small_model()->spec(), small_model()->weights(), RaggedBatch::single(part), attention, LogitRows::None,
              &sink, {});
    }
    const at::Tensor all = at::cat(sink.passes, 0);
    QVERIFY(sampled.input_rows.at("layers.2.mlp.gate_proj").equal(all.index_select(0, at::tensor(drawn, at::kLong))));
    QCOMPARE(static_cast<std::int64_t>(sampled.input_rows.size()), small_model()->info().layers * 2);
    QVERIFY(calibrate(*small_model(), ids, 64, "test", {}).input_rows.empty());
  }

  /// Every forward pass embeds its tokens once.
  void layerSweepRunsNoForwardPass() {
    const auto counted = std::make_shared<const CountedEmbedding>(small_model()->weights().embedding);
    DecoderWeights weights = small_model()->weights();
    weights.embedding = counted;
    const auto model =
        std::make_shared<const Model>(small_model()->info(), small_model()->spec(),
                                      std::make_shared<const DecoderWeights>(weights), nullptr, LoadOptions{});
    const Calibration sampled = calibrate(*model, text_ids(256), 128, "test", {}, kUsualInputSample);
    QCOMPARE(counted->passes.load(), 2);
    AlphaSweepRequest request;
    request.alphas = {0.2, 0.4, 0.6, 0.8};
    request.bits = {{8, 8}, {6, 6}};
    request.model_mode = false;
    const AlphaSweepResult result = alpha_sweep(model, sampled, request, nullptr, {}, {});
    QCOMPARE(counted->passes.load(), 2);
    QVERIFY(result.schemes[1].points[3].value > 0.0);
    // A capture holds maxima only: then one pass brings the inputs.
    Calibration maxima = sampled;
    maxima.input_rows.clear();
    request.calibration_ids = text_ids(64);
    alpha_sweep(model, maxima, request, nullptr, {}, {});
    QCOMPARE(counted->passes.load(), 3);
    request.calibration_ids.clear();
    QVERIFY(message_of([&] { alpha_sweep(model, maxima, request, nullptr, {}, {}); }).find("no tokens") !=
            std::string::npos);
  }

  void layerErrorIsThatOfAnIndependentComputation() {
    AlphaSweepRequest request;
    request.alphas = {0.65};
    request.bits = {{6, 5}};
    request.model_mode = false;
    const AlphaSweepResult result = alpha_sweep(small_model(), sampled_calibration(), request, nullptr, {}, {});
    for (const std::int64_t layer : {0, 3}) {
      const double expected = pair_error_by_hand(layer, 0.65, 6, 5);
      const double actual = result.schemes[0].points[0].layer_mse[static_cast<std::size_t>(layer * 2 + 1)];
      QVERIFY2(std::abs(actual / expected - 1.0) < 0.02, qPrintable(QString("%1 %2").arg(actual).arg(expected)));
    }
  }

  void searchedAlphaHasTheLeastError() {
    const std::string line = "alpha_rule=search,bits_w=4,bits_a=4";
    std::vector<std::string> notes;
    WeightContext with = context(&sampled_calibration(), WeightExecution::Simulated);
    with.on_linear = [&](const LayerProgress& progress) {
      notes.push_back(progress.linear + ": " + progress.notes[0]);
    };
    const DecoderWeights weights = method(line)->prepare(*small_model(), with, {});
    QCOMPARE(static_cast<std::int64_t>(notes.size()), small_model()->info().layers * 2);
    for (const std::int64_t layer : {0, 4}) {
      int best = 0;
      double least = 1e300;
      for (int step = 0; step <= 20; ++step) {
        const double error = pair_error_by_hand(layer, step / 20.0, 4, 4);
        if (error < least) least = error, best = step;
      }
      // The norm tells the alpha that was folded into it.
      const DecoderBlock &before = small_model()->weights().blocks[static_cast<std::size_t>(layer)],
                         &after = weights.blocks[static_cast<std::size_t>(layer)];
      const at::Tensor scale = before.mlp_norm.weight / after.mlp_norm.weight;
      int nearest = 0;
      double distance = 1e300;
      for (int step = 0; step <= 20; ++step) {
        const double off = relative(scale, mlp_scale(layer, step / 20.0));
        if (off < distance) distance = off, nearest = step;
      }
      QVERIFY2(distance < 1e-5, qPrintable(QString::number(distance)));
      QVERIFY2(std::abs(nearest - best) <= 1, qPrintable(QString("%1 %2").arg(nearest).arg(best)));
    }
    // What is quantized afterwards is the searched smoothing.
    const DecoderWeights applied = method(line)->apply(*small_model(), with, {});
    QVERIFY(applied.blocks[2].mlp_norm.weight.equal(weights.blocks[2].mlp_norm.weight));
  }

  void searchNeedsInputsAndSomethingToQuantize() {
    const std::string message = message_of([] {
      method("alpha_rule=search")->apply(*small_model(), context(&calibration(), WeightExecution::Simulated), {});
    });
    QVERIFY2(message.find("Calibrate on a text") != std::string::npos, message.c_str());
    QVERIFY(message_of([] { method("alpha_rule=search,bits_w=16,bits_a=16"); }).find("quantizes nothing") !=
            std::string::npos);
  }

  void bestAlphaOfEveryLayerIsASetup() {
    AlphaScheme scheme{"W8A8", 8, 8, {}};
    for (const double alpha : {0.3, 0.35 + 0.05 + 0.05})
      scheme.points.push_back({.alpha = alpha, .layer_mse = {2.0, 2.0, 1.0, 1.0, 5.0, 0.0}});
    scheme.points[1].layer_mse = {1.0, 1.0, 1.0, 0.5, 4.0, 2.0};
    QCOMPARE(best_alpha_setup(scheme, 3), std::string("layers:0-1=smoothquant:alpha=0.45;2=smoothquant:alpha=0.3"));
    QVERIFY(parse_weight_setup(best_alpha_setup(scheme, 3)));
  }

  void textsOfOneTokenAreRefused() {
    QVERIFY(message_of([] { calibrate(*small_model(), {1}, 0, "empty.txt", {}); }).find("some thousand tokens") !=
            std::string::npos);
  }

  void migrationInputsNameEveryPair() {
    const std::vector<MigrationInput> inputs = migration_inputs(*small_model(), calibration());
    QCOMPARE(static_cast<std::int64_t>(inputs.size()), small_model()->info().layers * 2);
    QCOMPARE(inputs[1].pair, std::string("layers.0.post_attention_layernorm"));
    QCOMPARE(static_cast<std::int64_t>(inputs[0].activation_absmax.size()), small_model()->info().hidden_size);
  }
};

QTEST_GUILESS_MAIN(TestSmoothQuant)
#include "tst_smoothquant.moc"
