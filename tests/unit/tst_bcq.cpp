#include <ATen/ATen.h>

#include <QTest>
#include <chrono>
#include <numeric>
#include <thread>

#include "backend/method_registry.h"
#include "backend/methods/bcq.h"
#include "backend/methods/bcq_method.h"
#include "backend/methods/bcq_search.h"
#include "backend/methods/lut_linear.h"
#include "backend/model/model.h"
#include "backend/types/error.h"
#include "kernels/dispatch.h"

using namespace qs;

namespace {

at::Tensor wavy(std::int64_t out, std::int64_t in) {
  const at::Tensor k = at::arange(out * in, at::kDouble);
  return (at::sin(k * 0.7311) * (1.0 + at::cos(k * 0.0137))).to(at::kFloat).view({out, in});
}

BcqOptions exact(int bits, std::int64_t group, int rounds, BcqAssign assign = BcqAssign::Nearest) {
  return {bits, group, rounds, assign, ScaleType::F32};
}

double mse(const BcqWeight& planes, const at::Tensor& weight) {
  return (planes.values - weight).to(at::kDouble).square().mean().item<double>();
}

double relative(const at::Tensor& a, const at::Tensor& b) { return ((a - b).norm() / b.norm()).item<double>(); }

std::string message_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

BcqMethod method_of(const std::string& line) { return BcqMethod(parse_weight_setup(line)->params); }

}  // namespace

class TestBcq : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void twoLevelsAreExactInOnePlane() {
    const at::Tensor w = at::tensor({0.5f, -0.5f, -0.5f, 0.5f, 0.5f, 0.5f, -0.5f, -0.5f}).view({1, 8});
    const BcqWeight planes = bcq(w, exact(1, 8, 0), "w", {});
    QVERIFY(at::equal(planes.values, w));
    QCOMPARE(planes.alpha.item<float>(), 0.5f);
  }

  void aGridOfPowersOfTwoIsFoundExactly_data() {
    QTest::addColumn<int>("bits");
    for (const int bits : {1, 2, 3, 4, 5, 6, 7, 8}) QTest::addRow("%d bits", bits) << bits;
  }

  /// Every sum of +-1, +-1/2, +-1/4 ... once: greedy takes 1 first, whose mean it is, then 1/2, and so on.
  void aGridOfPowersOfTwoIsFoundExactly() {
    QFETCH(int, bits);
    const std::int64_t levels = std::int64_t{1} << bits, group = std::max<std::int64_t>(levels, 8);
    const at::Tensor code = at::arange(group, at::kFloat).remainder(static_cast<double>(levels));
    const at::Tensor w = ((2.0 * code - static_cast<double>(levels - 1)) * std::ldexp(1.0, -bits + 1)).view({1, group});
    for (const int rounds : {0, 1, 30}) {
      const BcqWeight planes = bcq(w, exact(bits, group, rounds), "w", {});
      QVERIFY(relative(planes.values, w) < 1e-6);
      for (int i = 0; i < bits; ++i)
        QVERIFY(std::abs(planes.alpha[0][0][i].item<double>() - std::ldexp(1.0, -i)) < 1e-6);
    }
  }

  void zeroAndConstantGroups() {
    at::Tensor w = at::zeros({2, 32});
    w[1].fill_(-0.375f);
    for (const int bits : {1, 2, 3, 5}) {
      for (const BcqAssign assign : {BcqAssign::Nearest, BcqAssign::Greedy}) {
        const BcqWeight planes = bcq(w, exact(bits, 16, 10, assign), "w", {});
        QVERIFY(at::equal(planes.values[0], w[0]));
        QVERIFY((planes.codes[0] == (1 << bits) - 1).all().item<bool>());
        QCOMPARE(planes.alpha[0].abs().max().item<float>(), 0.0f);
        QVERIFY(relative(planes.values[1], w[1]) < 1e-6);
      }
    }
  }

  void moreRoundsNeverLoseWithTheNearestSum() {
    for (const int bits : {2, 3, 4, 6}) {
      const at::Tensor w = wavy(8, 128);
      double last = 1e300;
      for (const int rounds : {0, 1, 2, 3, 5, 10, 30}) {
        const double loss = mse(bcq(w, exact(bits, 64, rounds), "w", {}), w);
        QVERIFY2(loss <= last * (1.0 + 1e-6), qPrintable(QString("%1 bits, %2 rounds").arg(bits).arg(rounds)));
        last = loss;
      }
      QVERIFY(last < 0.95 * mse(bcq(w, exact(bits, 64, 0), "w", {}), w));
      QVERIFY(last <= mse(bcq(w, exact(bits, 64, 30, BcqAssign::Greedy), "w", {}), w));
    }
  }

  /// What a round leaves cannot be improved by other signs: brute force over all sums.
  void everyWeightHasTheNearestSum() {
    const at::Tensor w = wavy(4, 64);
    const BcqWeight planes = bcq(w, exact(3, 32, 4), "w", {});
    for (std::int64_t row = 0; row < 4; ++row)
      for (std::int64_t i = 0; i < 64; ++i) {
        const float* const alpha = planes.alpha[row][i / 32].data_ptr<float>();
        double best = 1e300;
        for (unsigned code = 0; code < 8; ++code)
          best = std::min(best,
                          std::abs(static_cast<double>(bcq_value(code, alpha, 3, 1, 0.0f)) - w[row][i].item<double>()));
        QVERIFY(std::abs(planes.values[row][i].item<double>() - w[row][i].item<double>()) <= best + 1e-6);
      }
  }

  void leastSquaresIsExactAndOfLeastNorm() {
    // Two equal planes: alpha is split evenly.
    const double equal[] = {4.0, 4.0, 4.0, 4.0};
    double x[] = {8.0, 8.0};
    solve_least_norm(equal, 2, x);
    QVERIFY(std::abs(x[0] - 1.0) < 1e-12 && std::abs(x[1] - 1.0) < 1e-12);
    const double regular[] = {8.0, 2.0, -2.0, 2.0, 8.0, 4.0, -2.0, 4.0, 8.0};
    double y[] = {1.0, 2.0, 3.0};
    solve_least_norm(regular, 3, y);
    for (int i = 0; i < 3; ++i) {
      double back = 0.0;
      for (int j = 0; j < 3; ++j) back += regular[3 * i + j] * y[j];
      QVERIFY(std::abs(back - (i + 1.0)) < 1e-12);
    }
  }

  void uniformCodesBecomePlanesExactly_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("group");
    for (const int bits : {2, 3, 4, 5, 8})
      for (const int group : {-1, 32}) QTest::addRow("b%d g%d", bits, group) << bits << group;
  }

  void uniformCodesBecomePlanesExactly() {
    QFETCH(int, bits);
    QFETCH(int, group);
    WeightQuantizer grid;
    grid.affine.bits = bits;
    grid.affine.scale_type = ScaleType::F32;
    grid.granularity = group > 0 ? Granularity::Group : Granularity::PerChannel;
    grid.group_size = group;
    const WeightCodes codes = quantize_weight_codes(wavy(24, 64) + 0.3, grid, "w");
    const BcqWeight planes = bcq_from_codes(codes, bits, ScaleType::F32, "w");
    QVERIFY(at::equal(planes.codes, codes.codes));
    const double largest = codes.values.abs().max().item<double>();
    QVERIFY((planes.values - codes.values).abs().max().item<double>() <= 2e-6 * largest);
    // B2: neighbouring planes are factors of two apart.
    for (int i = 1; i < bits; ++i) QVERIFY(at::equal(planes.alpha.select(2, i), planes.alpha.select(2, i - 1) * 2.0));
  }

  void codesInProcessingOrderAreRefused() {
    WeightCodes codes = quantize_weight_codes(wavy(4, 16), {}, "w");
    codes.order = at::arange(15, -1, -1, at::kLong);
    QVERIFY(message_of([&] { bcq_from_codes(codes, 4, ScaleType::F32, "layers.0.q"); }).find("layers.0.q") !=
            std::string::npos);
  }

  void signRunsAreReadBack() {
    const at::Tensor codes = bcq(wavy(6, 40), exact(3, 8, 2), "w", {}).codes;
    const at::Tensor packed = pack_sign_runs(codes, 3);
    QCOMPARE(packed.numel(), std::int64_t{6 * 40 * 3 / 8});
    QVERIFY(at::equal(unpack_sign_runs(packed, 6, 40, 3), codes));
    // Byte j holds element j of run i in bit i.
    const std::int64_t element = 2 * packed.numel() + 7;
    QCOMPARE(packed[7].item<int>() >> 2 & 1,
             codes.view({-1})[element / 3].item<int>() >> static_cast<int>(element % 3) & 1);
    QVERIFY_THROWS_EXCEPTION(Error, unpack_sign_runs(packed, 6, 48, 3));
  }

  void allocatedBytesFollowTheFormula() {
    const at::Tensor w = wavy(72, 128);
    for (const int bits : {1, 3, 4, 8}) {
      for (const int group : {-1, 32}) {
        for (const char* const from : {"search", "rtn"}) {
          if (bits == 1 && std::string(from) == "rtn") continue;
          for (const char* const type : {"f16", "f32"}) {
            const std::string line = "bcq:rounds=1,bits=" + std::to_string(bits) +
                                     ",group_size=" + std::to_string(group) + ",from=" + from + ",scale_dtype=" + type;
            const BcqMethod method = method_of(line);
            const auto linear =
                method.make_linear(method.quantize(w, "w", {}), {}, WeightExecution::Packed, at::kFloat);
            QCOMPARE(static_cast<double>(linear->bytes()) * 8.0, method.effective_bits(72, 128) * 72.0 * 128.0);
          }
        }
      }
    }
    QCOMPARE(method_of("bcq:bits=4").effective_bits(4096, 4096), 4.5);
    QCOMPARE(method_of("bcq:bits=4,from=rtn").effective_bits(4096, 4096), 4.625);
  }

  void packedEqualsSimulated_data() {
    QTest::addColumn<QString>("setup");
    QTest::addColumn<int>("in");
    QTest::addColumn<double>("tolerance");
    // Groups of 8 and 40 run on the scalar form.
    const char* const setups[][2] = {{"rounds=3", "256"},
                                     {"bits=1,group_size=-1", "100"},
                                     {"bits=3,group_size=8,rounds=1", "64"},
                                     {"bits=8,group_size=40,rounds=1", "120"},
                                     {"bits=3,group_size=32,from=rtn", "96"},
                                     {"bits=8,group_size=-1,from=rtn,scale_dtype=f32", "96"},
                                     {"bits=2,group_size=64,scale_dtype=bf16", "192"}};
    for (const auto& [setup, in] : setups) {
      const QString line = QString("bcq:%1,table_arithmetic=").arg(setup);
      QTest::addRow("%s, f32 tables", setup) << line + "f32" << atoi(in) << 1e-5;
      QTest::addRow("%s, int16 tables", setup) << line + "int16" << atoi(in) << 1e-3;
      QTest::addRow("%s, int8 tables", setup) << line + "int8" << atoi(in) << 5e-2;
    }
    QTest::addRow("defaults") << "bcq" << 256 << 1e-3;
  }

  /// The same weight bit for bit; products differ by the order of their sums.
  void packedEqualsSimulated() {
    QFETCH(QString, setup);
    QFETCH(int, in);
    QFETCH(double, tolerance);
    const BcqMethod method = method_of(setup.toStdString());
    const BcqWeight planes = method.quantize(wavy(300, in), "w", {});
    const at::Tensor bias = at::cos(at::arange(300, at::kFloat));
    const auto simulated = method.make_linear(planes, bias, WeightExecution::Simulated, at::kFloat),
               packed = method.make_linear(planes, bias, WeightExecution::Packed, at::kFloat);
    QVERIFY(packed->packed() && !simulated->packed());
    QVERIFY(at::equal(packed->weight(), simulated->weight()));
    QVERIFY(at::equal(packed->weight(), planes.values));
    for (const std::int64_t tokens : {0, 1, 2, 5, 16, 200}) {
      const at::Tensor x = at::cos(at::arange(tokens * in, at::kFloat) * 0.913).view({tokens, in});
      const at::Tensor expected = simulated->apply(x), actual = packed->apply(x);
      QCOMPARE(actual.sizes(), expected.sizes());
      if (tokens == 0) continue;
      const double error = relative(actual, expected);
      QVERIFY2(error < tolerance, qPrintable(QString::number(error)));
    }
  }

  void groupsThatDoNotFitNameTheNearest() {
    const auto refusal = [](std::int64_t group, std::int64_t in) {
      return message_of([&] { bcq(wavy(2, in), exact(4, group, 0), "layers.1.mlp.up_proj", {}); });
    };
    const std::string uneven = refusal(100, 256);
    QVERIFY(uneven.find("layers.1.mlp.up_proj") != std::string::npos &&
            uneven.find("nearest that fits is 128") != std::string::npos);
    QVERIFY(refusal(4, 256).find("nearest that fits is 8") != std::string::npos);
    QVERIFY(refusal(32, 36).find("nearest that fits is -1") != std::string::npos);
    QVERIFY(refusal(256, 256).empty());
    QVERIFY(message_of([] { method_of("bcq:group_size=60"); }).find("nearest is 64") != std::string::npos);
    QVERIFY(message_of([] { method_of("bcq:group_size=0"); }).find("nearest is 8") != std::string::npos);
    QVERIFY(message_of([] { method_of("bcq:bits=1,from=rtn"); }).find("from=rtn") != std::string::npos);
  }

  void infinitiesAreNamed() {
    at::Tensor w = wavy(4, 32);
    w[2][7] = std::numeric_limits<float>::infinity();
    const std::string message = message_of([&] { bcq(w, exact(4, 32, 1), "w", {}); });
    QVERIFY(message.find("row 2, column 7") != std::string::npos);
  }

  void oneGroupARowWarns() {
    QVERIFY(!method_of("bcq:group_size=-1,rounds=1").quantize_weight(wavy(4, 64), "w").notes.empty());
    QVERIFY(method_of("bcq:group_size=32,rounds=1").quantize_weight(wavy(4, 64), "w").notes.empty());
    QVERIFY(method_of("bcq:group_size=-1,from=rtn").quantize_weight(wavy(4, 64), "w").notes.empty());
  }

  void halfTypesAreSearchedInF32() {
    const at::Tensor w = wavy(8, 64).to(at::kBFloat16);
    const BcqWeight a = bcq(w, exact(4, 64, 5), "w", {}), b = bcq(w.to(at::kFloat), exact(4, 64, 5), "w", {});
    QVERIFY(at::equal(a.codes, b.codes) && at::equal(a.alpha, b.alpha));
    QCOMPARE(method_of("bcq:group_size=64").quantize_weight(w, "w").values.scalar_type(), at::kBFloat16);
  }

  /// A whole model: only the blocks asked for change, packed logits equal simulated ones, and every linear is told of.
  void aModelIsQuantizedInTheLayersAskedFor() {
    const std::shared_ptr<const Model> model = Model::load(QS_TEST_DATA "/models/stories260K-hf", {}, {});
    const BcqMethod method = method_of("bcq:bits=4,group_size=-1,rounds=5");
    std::vector<LayerProgress> told;
    WeightContext context;
    context.layers = {LayerRange{1, 2}};
    context.on_linear = [&told](const LayerProgress& progress) { told.push_back(progress); };
    DecoderWeights simulated = method.apply(*model, context, {}), original = model->weights();
    context.execution = WeightExecution::Packed;
    DecoderWeights packed = method.apply(*model, context, {});
    const std::vector<LinearSlot> before = linear_slots(original), after = linear_slots(packed);
    std::size_t changed = 0;
    for (std::size_t i = 0; i < before.size(); ++i) {
      const bool asked = before[i].layer == 1 || before[i].layer == 2;
      QCOMPARE((*after[i].op)->packed(), asked);
      QCOMPARE((*after[i].op)->weight().equal((*before[i].op)->weight()), !asked);
      changed += asked ? 1 : 0;
    }
    QVERIFY(changed > 0);
    QCOMPARE(told.size(), 2 * changed);
    QVERIFY(!told.front().notes.empty() && told[1].notes.empty());

    const RaggedBatch batch = RaggedBatch::single({1, 40, 77, 200, 303, 12, 9});
    const auto logits = [&](const DecoderWeights& weights) {
      FullPrecisionWindow attention;
      return forward(model->spec(), weights, batch, attention, LogitRows::All, nullptr, {});
    };
    QVERIFY(relative(logits(packed), logits(simulated)) < 1e-3);
    QVERIFY(relative(logits(simulated), logits(original)) > 1e-3);
  }

  void cancelEndsTheSearchWithinASecond() {
    const at::Tensor w = wavy(2048, 2048);
    std::stop_source source;
    const JobContext job(source.get_token(), {});
    std::chrono::steady_clock::time_point asked;
    std::jthread canceller([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(150));
      asked = std::chrono::steady_clock::now();
      source.request_stop();
    });
    bool cancelled = false;
    try {
      bcq(w, exact(8, 2048, 200), "w", job);
    } catch (const Cancelled&) {
      cancelled = true;
    }
    canceller.join();
    QVERIFY(cancelled);
    QVERIFY(std::chrono::steady_clock::now() - asked < std::chrono::seconds(1));
  }
};

QTEST_GUILESS_MAIN(TestBcq)
#include "tst_bcq.moc"
