#include <ATen/ATen.h>

#include <QTest>
#include <functional>

#include "backend/evaluation/alpha_sweep.h"
#include "backend/evaluation/calibrate.h"
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

  void migrationInputsNameEveryPair() {
    const std::vector<MigrationInput> inputs = migration_inputs(*small_model(), calibration());
    QCOMPARE(static_cast<std::int64_t>(inputs.size()), small_model()->info().layers * 2);
    QCOMPARE(inputs[1].pair, std::string("layers.0.post_attention_layernorm"));
    QCOMPARE(static_cast<std::int64_t>(inputs[0].activation_absmax.size()), small_model()->info().hidden_size);
  }
};

QTEST_GUILESS_MAIN(TestSmoothQuant)
#include "tst_smoothquant.moc"
