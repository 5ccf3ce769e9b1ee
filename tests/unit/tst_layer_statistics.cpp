#include <ATen/ATen.h>

#include <QTest>
#include <cmath>
#include <functional>
#include <sstream>

#include "backend/evaluation/calibrate.h"
#include "backend/evaluation/layer_statistics.h"
#include "backend/evaluation/python_random.h"
#include "backend/evaluation/windows.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/smoothing.h"
#include "backend/model/decoder.h"
#include "backend/tokenizer/tokenizer.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

std::shared_ptr<const Model> model() {
  static const std::shared_ptr<const Model> loaded = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, {});
  return loaded;
}

const EvalText& text() {
  static const EvalText read = read_text(QS_RESOURCES "/texts/sample-valid.txt");
  return read;
}

const Calibration& calibration() {
  static const Calibration made = [] {
    std::vector<std::int64_t> ids = encode_with_bos(model()->tokenizer(), text().text.substr(0, 4000));
    ids.resize(512);
    return calibrate(*model(), ids, 0, "test", {});
  }();
  return made;
}

WeightContext context() {
  WeightContext made;
  made.calibration = &calibration();
  return made;
}

std::optional<Setup> setup(const std::string& line) { return parse_weight_setup(line); }

std::shared_ptr<const Variant> variant(const std::string& weights, const std::string& kv = {}) {
  return make_variant(model(), setup(weights), parse_kv_setup(kv), context(), {});
}

EvalRequest request(std::int64_t windows = 2, std::int64_t window = 64) {
  return {.text = text(), .window = window, .windows = windows};
}

LayerStatistics statistics(const std::string& line, const EvalRequest& of = request()) {
  return layer_statistics(*variant(line), unrounded_weights(*model(), setup(line), context(), {}), of, {});
}

LayerDistance distance(const std::string& line, const std::string& kv = {}, std::int64_t windows = 1) {
  return layer_distance(*variant(line, kv), unrounded_weights(*model(), setup(line), context(), {}),
                        {.text = text(), .window = 96, .windows = windows}, {});
}

const LinearStatistics& row(const LayerStatistics& of, const std::string& name) {
  for (const LinearStatistics& linear : of.linears)
    if (linear.place.name == name) return linear;
  throw std::runtime_error("no row " + name);
}

const LinearDistance& row(const LayerDistance& of, const std::string& name) {
  for (const LinearDistance& linear : of.linears)
    if (linear.place.name == name) return linear;
  throw std::runtime_error("no row " + name);
}

/// The input of one linear in one pass.
class InputTap final : public TapSink {
 public:
  InputTap(std::int64_t layer, LinearKind kind) : layer_(layer), kind_(kind) {}
  void on_linear_input(std::int64_t layer, LinearKind kind, const at::Tensor& x) override {
    if (layer == layer_ && kind == kind_) input = x.to(at::kDouble);
  }
  at::Tensor input;

 private:
  std::int64_t layer_;
  LinearKind kind_;
};

at::Tensor input_of(const DecoderWeights& weights, const std::vector<std::int64_t>& ids, std::int64_t layer,
                    LinearKind kind) {
  InputTap tap(layer, kind);
  FullPrecisionWindow attention(weights.attention);
  forward(model()->spec(), weights, RaggedBatch::single(ids), attention, LogitRows::None, &tap, {});
  return tap.input;
}

double sqnr(const at::Tensor& a, const at::Tensor& b) {
  return 10.0 * std::log10(a.square().sum().item<double>() / (a - b).square().sum().item<double>());
}

bool near(double a, double b, double tolerance) { return std::abs(a - b) <= tolerance * std::max(1.0, std::abs(b)); }

/// Weights specification 1.3 on every row.
at::Tensor rounded_rows(const at::Tensor& x, int bits) {
  const at::Tensor low = at::amin(x, {1}, true).clamp_max(0.0), high = at::amax(x, {1}, true).clamp_min(0.0);
  const double steps = std::pow(2.0, bits) - 1.0;
  const at::Tensor scale = (high - low) / steps, zero = at::round(-low / scale);
  return (at::round(x / scale).add_(zero).clamp_(0.0, steps) - zero) * scale;
}

}  // namespace

class TestLayerStatistics : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void everyLinearHasSixteenNumbers() {
    const LayerStatistics found = statistics("rtn:bits=4,bits_a=6");
    QCOMPARE(found.linears.size(), model()->weights().blocks.size() * 7);
    QCOMPARE(found.linears[6].place, (LinearPlace{"layers.0.mlp.down_proj", 0, "down_proj", -1}));
    for (const LinearStatistics& linear : found.linears) {
      QCOMPARE(linear.values.size(), std::size_t{16});
      QCOMPARE(linear.windows, std::int64_t{2});
      QCOMPARE(linear.tokens, std::int64_t{128});
      for (const auto& [name, value] : linear.values) QVERIFY2(std::isfinite(value), name.c_str());
      QVERIFY(linear.values.at("sqnr_o") > 5.0);
    }
    QCOMPARE(found.protocol.windows, std::int64_t{2});
    QVERIFY(!found.fingerprint.empty());
  }

  /// Window by window, in double precision and without the program's own rounding or statistics.
  void numbersAreThoseOfAnIndependentComputation() {
    const std::string line = "rtn:bits=4,bits_a=6,scale_dtype=f32,quantize_attention=false";
    const LayerStatistics found = statistics(line);
    const auto quantized = variant(line);
    const at::Tensor w = model()->weights().blocks[2].linear(LinearKind::Up).weight(), kept = rounded_rows(w, 4);
    std::map<std::string, double> sums;
    const EvalWindows cut = cut_windows(*model(), request());
    for (const std::vector<std::int64_t>& ids : cut.windows) {
      const at::Tensor x = input_of(quantized->weights(), ids, 2, LinearKind::Up),
                       seen = rounded_rows(x.to(at::kFloat), 6);
      const at::Tensor reference = at::matmul(x, w.to(at::kDouble).t()),
                       output = at::matmul(seen.to(at::kDouble), kept.to(at::kDouble).t());
      sums["sqnr_x"] += sqnr(x, seen) / 2.0;
      sums["sqnr_o"] += sqnr(reference, output) / 2.0;
      sums["mse_o"] += (reference - output).square().mean().item<double>() / 2.0;
      sums["mean_x"] += x.mean().item<double>() / 2.0;
      sums["std_x"] += x.std().item<double>() / 2.0;
      sums["max_x"] += x.max().item<double>() / 2.0;
      const at::Tensor centred = x - x.mean();
      sums["kurt_x"] +=
          (centred.pow(4).mean().item<double>() / std::pow(centred.square().mean().item<double>(), 2) - 3.0) / 2.0;
    }
    sums["sqnr_w"] = sqnr(w.to(at::kDouble), kept.to(at::kDouble));
    sums["min_w"] = w.min().item<double>();
    const LinearStatistics& row_found = row(found, "layers.2.mlp.up_proj");
    for (const auto& [name, value] : sums) {
      const double actual = row_found.values.at(name);
      QVERIFY2(near(actual, value, 2e-3), qPrintable(QString("%1: %2 %3").arg(name.c_str()).arg(actual).arg(value)));
    }
  }

  void exactWindowsAreCountedAndNotAveraged() {
    const LayerStatistics full = statistics("");
    for (const LinearStatistics& linear : full.linears) {
      for (const char* name : {"sqnr_x", "sqnr_w", "sqnr_o"}) {
        QVERIFY(std::isinf(linear.values.at(name)));
        QCOMPARE(linear.exact_windows.at(name), std::int64_t{2});
      }
      QCOMPARE(linear.values.at("mse_o"), 0.0);
    }
    const LayerStatistics weights_only = statistics("rtn:bits=4");
    const LinearStatistics& up = row(weights_only, "layers.1.mlp.up_proj");
    QCOMPARE(up.exact_windows.at("sqnr_x"), std::int64_t{2});
    QCOMPARE(up.exact_windows.at("sqnr_o"), std::int64_t{0});
    QVERIFY(std::isfinite(up.values.at("sqnr_o")));
    const LayerStatistics some = statistics("layers:0=none;*=rtn:bits=3");
    QVERIFY(std::isinf(row(some, "layers.0.self_attn.q_proj").values.at("sqnr_w")));
    QVERIFY(row(some, "layers.1.self_attn.q_proj").values.at("sqnr_w") < 25.0);
  }

  /// Whoever quantizes inputs is seen to: the number is the same when the linear computes from codes.
  void everyWayToQuantizeInputsIsSeen() {
    for (const char* line : {"smoothquant", "rtn:bits=8,bits_a=6", "zeroquant:bits_a=8", "absmax:scope=all",
                             "smoothquant+zeroquant:bits_a=16", "smoothquant+bcq:group_size=-1,rounds=1"}) {
      const DecoderWeights unrounded = unrounded_weights(*model(), setup(line), context(), {});
      WeightContext packed = context();
      packed.execution = WeightExecution::Packed;
      const auto of = [&](const WeightContext& how) {
        const auto made = make_variant(model(), setup(line), std::nullopt, how, {});
        return row(layer_statistics(*made, unrounded, request(1), {}), "layers.0.mlp.gate_proj").values.at("sqnr_x");
      };
      const double simulated = of(context());
      QVERIFY2(std::isfinite(simulated) && simulated > 10.0, line);
      QVERIFY2(near(of(packed), simulated, 2e-2), line);
    }
  }

  /// The reference is the smoothed weight before rounding, so smoothing alone is no error.
  void smoothingIsNoError() {
    const LayerStatistics found = statistics("smoothquant:alpha=0.7,bits_w=16,bits_a=16");
    for (const LinearStatistics& linear : found.linears) QVERIFY(std::isinf(linear.values.at("sqnr_o")));
    const LayerStatistics rounded = statistics("smoothquant:alpha=0.7");
    const DecoderWeights smoothed =
        smooth_decoder(model()->spec(), model()->weights(), calibration(), {.alpha = 0.7}, nullptr, {});
    const LinearStatistics& gate = row(rounded, "layers.0.mlp.gate_proj");
    QVERIFY(
        near(gate.values.at("max_w"), smoothed.blocks[0].linear(LinearKind::Gate).weight().max().item<double>(), 1e-6));
    QVERIFY(gate.values.at("sqnr_w") > 30.0);
  }

  void distanceGrowsFromTheFirstLayerToTheHead() {
    const LayerDistance found = distance("rtn:bits=3");
    QCOMPARE(found.linears.size(), model()->weights().blocks.size() * 7 + 1);
    QCOMPARE(found.linears.back().place, (LinearPlace{"lm_head", -1, "lm_head", -1}));
    // Nothing stands in front of the first linears.
    QVERIFY(std::isinf(row(found, "layers.0.self_attn.v_proj").sqnr_db));
    QCOMPARE(row(found, "layers.0.self_attn.v_proj").exact_windows, std::int64_t{1});
    QVERIFY(std::isfinite(row(found, "layers.0.self_attn.o_proj").sqnr_db));
    QVERIFY(found.linears.back().mse > 0.0);
    QVERIFY(row(distance("rtn:bits=8"), "lm_head").sqnr_db > found.linears.back().sqnr_db + 15.0);
  }

  void distanceIsThatOfTwoSeparatePasses() {
    const LayerDistance found = distance("rtn:bits=3", {}, 2);
    const std::vector<std::int64_t> ids = encode_with_bos(model()->tokenizer(), text().text);
    PythonRandom random(1234);
    double expected = 0.0, mse = 0.0;
    const auto quantized = variant("rtn:bits=3");
    for (std::size_t i = 0; i < 2; ++i) {
      const std::int64_t start = random.randint(0, static_cast<std::int64_t>(ids.size()) - 97);
      QCOMPARE(found.starts[i], start);
      const std::vector<std::int64_t> window(ids.begin() + start, ids.begin() + start + 96);
      const at::Tensor full = input_of(model()->weights(), window, 3, LinearKind::Down),
                       seen = input_of(quantized->weights(), window, 3, LinearKind::Down);
      expected += sqnr(full, seen) / 2.0;
      mse += (full - seen).square().mean().item<double>() / 2.0;
    }
    QVERIFY(near(row(found, "layers.3.mlp.down_proj").sqnr_db, expected, 1e-4));
    QVERIFY(near(row(found, "layers.3.mlp.down_proj").mse / mse, 1.0, 1e-4));
  }

  void smoothingAndNothingAreNoDistance() {
    for (const LinearDistance& linear : distance("").linears) QVERIFY(std::isinf(linear.sqnr_db));
    for (const LinearDistance& linear : distance("smoothquant:bits_w=16,bits_a=16").linears)
      QVERIFY2(linear.sqnr_db > 90.0, linear.place.name.c_str());
  }

  void theBaselineQuantizesNoAttention() {
    const std::string line = "rtn:bits=16,bits_a=4";
    const double with = row(distance(line), "layers.0.self_attn.o_proj").sqnr_db,
                 without = row(distance(line + ",quantize_attention=false"), "layers.0.self_attn.o_proj").sqnr_db;
    QVERIFY2(with + 1.0 < without, qPrintable(QString("%1 %2").arg(with).arg(without)));
  }

  void aQuantizedCacheIsSeenToo() {
    const LayerDistance found = distance("", "rtn:bits=2,group_size=8");
    QVERIFY(std::isinf(row(found, "layers.0.self_attn.q_proj").sqnr_db));
    QVERIFY(std::isfinite(row(found, "layers.0.self_attn.o_proj").sqnr_db));
  }

  void tablesAreCsv() {
    const LayerStatistics found = statistics("rtn:bits=4,bits_a=8", request(1));
    std::istringstream lines(csv_text(found));
    std::string line;
    std::getline(lines, line);
    QCOMPARE(line, std::string("layer,kurt_w,kurt_x,max_w,max_x,mean_w,mean_x,min_w,min_x,mse_o,mse_w,mse_x,sqnr_o,"
                               "sqnr_w,sqnr_x,std_w,std_x"));
    std::getline(lines, line);
    QVERIFY(line.rfind("layers.0.self_attn.q_proj,", 0) == 0);
    QCOMPARE(std::count(line.begin(), line.end(), ','), std::ptrdiff_t{16});
    const std::string far = csv_text(distance("rtn:bits=4"));
    QVERIFY(far.rfind("layer,mse,sqnr\nlayers.0.self_attn.q_proj,0,inf\n", 0) == 0);
  }

  void wrongRequestsSaySo() {
    const auto message = [](const std::function<void()>& work) -> QString {
      try {
        work();
      } catch (const Error& error) {
        return error.what();
      }
      return {};
    };
    QVERIFY(message([] { statistics("", request(1, 100000)); }).contains("does not fit"));
    QVERIFY(message([] {
              layer_distance(*variant(""), model()->weights(), {.text = {"short", "", "One day."}, .window = 64}, {});
            }).contains("'short' has"));
    QVERIFY(message([] { distance("rtn:bits=8,bits_a=8", "rtn:group_size=8"); }).contains("quantized twice"));
  }
};

QTEST_GUILESS_MAIN(TestLayerStatistics)
#include "tst_layer_statistics.moc"
