#include <ATen/ATen.h>

#include <QTest>
#include <chrono>
#include <stop_token>

#include "backend/methods/gptq.h"
#include "backend/methods/hessian.h"
#include "backend/methods/packed_linear.h"
#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"
#include "backend/types/weight_run.h"

using namespace qs;

namespace {

/// Inputs whose channels are correlated and of very different sizes, as in a language model.
at::Tensor inputs(std::int64_t tokens, std::int64_t features, std::int64_t seed = 1) {
  at::manual_seed(static_cast<std::uint64_t>(seed));
  const at::Tensor mix = at::randn({features, features}) / std::sqrt(static_cast<double>(features)) + at::eye(features);
  const at::Tensor size = at::exp(at::randn({features}));
  return at::mm(at::randn({tokens, features}), mix) * size;
}

at::Tensor hessian_of(const at::Tensor& x) {
  HessianSum sum(x.size(1));
  sum.add(x, 1, {});
  return sum.matrix("w");
}

GptqOptions options_of(int bits, std::int64_t group_size, bool act_order, bool static_groups, bool fresh,
                       std::int64_t block_size = 128) {
  GptqOptions options;
  options.affine.bits = bits;
  options.affine.scale_type = ScaleType::F32;
  options.group_size = group_size;
  options.act_order = act_order;
  options.static_groups = static_groups;
  options.fresh_statistics = fresh;
  options.block_size = block_size;
  return options;
}

/// The method as the OBQ paper derives it: after each column the inverse of what is left of H is downdated. No factor,
/// no blocks, double precision; one range a row.
at::Tensor codes_by_downdates(const at::Tensor& weight, const at::Tensor& hessian, int bits, double percdamp) {
  at::Tensor w = weight.to(at::kDouble).clone(), h = hessian.to(at::kDouble).clone();
  h.diagonal().add_(percdamp * h.diagonal().mean());
  at::Tensor inverse = at::inverse(h), codes = at::zeros(weight.sizes(), at::kByte);
  const double top = (1 << bits) - 1;
  const at::Tensor low = w.amin(1, true).clamp_max(0), high = w.amax(1, true).clamp_min(0);
  const at::Tensor scale = (high - low) / top, zero = at::round(-low / scale);
  for (std::int64_t j = 0; j < w.size(1); ++j) {
    const at::Tensor column = w.narrow(1, j, 1);
    const at::Tensor q = (at::round(column / scale) + zero).clamp(0, top);
    codes.narrow(1, j, 1).copy_(q);
    const at::Tensor error = (column - scale * (q - zero)) / inverse[j][j];
    const at::Tensor row = inverse[j].clone().unsqueeze(0);
    w.sub_(at::mm(error, row));
    inverse.sub_(at::mm(row.t(), row) / row[0][j]);
  }
  return codes;
}

double fraction_equal(const at::Tensor& a, const at::Tensor& b) {
  return (a == b).to(at::kDouble).mean().item<double>();
}

double damped_loss(const at::Tensor& difference, const at::Tensor& hessian, double percdamp) {
  at::Tensor h = hessian.clone();
  at::Tensor diagonal = h.diagonal();
  diagonal.masked_fill_(diagonal == 0, 1.0);
  diagonal.add_(percdamp * diagonal.mean());
  return proxy_loss(difference, h);
}

}  // namespace

class TestGptq : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void hessianIsTheScaledSumOverSequences() {
    const at::Tensor x = inputs(90, 700);
    HessianSum sum(700);
    sum.add(x.narrow(0, 0, 40), 1, {});
    sum.add(x.narrow(0, 40, 20), 0, {});
    sum.add(x.narrow(0, 60, 30), 1, {});
    const at::Tensor wide = x.to(at::kDouble), expected = at::mm(wide.t(), wide) * (2.0 / 2.0);
    QCOMPARE(sum.tokens(), std::int64_t{90});
    QCOMPARE(sum.sequences(), std::int64_t{2});
    QVERIFY(((sum.matrix("w").to(at::kDouble) - expected).norm() / expected.norm()).item<double>() < 1e-6);
  }

  void hessianNamesTheBrokenColumn() {
    at::Tensor x = inputs(8, 5);
    x[3][2] = std::numeric_limits<float>::infinity();
    HessianSum sum(5);
    sum.add(x, 1, {});
    try {
      sum.matrix("layers.1.mlp.up_proj");
      QFAIL("an infinity went through");
    } catch (const Error& error) {
      QVERIFY(QString(error.what()).contains("layers.1.mlp.up_proj"));
      QVERIFY(QString(error.what()).contains("column 2"));
    }
  }

  void upperFactor_data() {
    QTest::addColumn<int>("size");
    for (const int size : {1, 7, 65, 256, 257, 600, 1300}) QTest::addRow("%d", size) << size;
  }

  void upperFactor() {
    QFETCH(int, size);
    at::Tensor h = hessian_of(inputs(2 * size + 3, size));
    h.diagonal().add_(0.01 * h.diagonal().mean());
    at::Tensor factor = h.clone();
    QVERIFY(factorize_upper(factor, {}));
    const at::Tensor v = factor.triu().to(at::kDouble), size_of_h = h.diagonal().to(at::kDouble).sqrt().unsqueeze(0);
    QVERIFY((v.diagonal() > 0).all().item<bool>());
    // Backward error, element by element against the sizes of the rows and columns.
    const at::Tensor error = (at::mm(v, v.t()) - h.to(at::kDouble)).abs() / (size_of_h * size_of_h.t());
    QVERIFY2(error.max().item<double>() < 2e-6, qPrintable(QString::number(error.max().item<double>())));
  }

  void dampingClimbsUntilTheFactorExists() {
    // Twice the same channel and no damping: rank 1 of 2. Adding to the diagonal repairs it.
    const at::Tensor flat = at::ones({2, 2}, at::kFloat);
    const DampedFactor factor = damped_factor(flat, 0.0, {}, {});
    QVERIFY(factor.upper.defined());
    QVERIFY(factor.attempts > 1 && factor.damping >= 0.01);
    QVERIFY(!factor.notes.empty());
    const at::Tensor hopeless = at::tensor({1.0F, 50.0F, 50.0F, 1.0F}).view({2, 2});
    const DampedFactor none = damped_factor(hopeless, 0.01, {}, {});
    QVERIFY(!none.upper.defined());
    QVERIFY(none.damping <= 1.0 + 1e-6);
  }

  void agreesWithInverseDowndates() {
    at::manual_seed(5);
    const at::Tensor w = at::randn({40, 150}), h = hessian_of(inputs(400, 150));
    for (const int bits : {2, 4}) {
      const GptqResult result = gptq(w, h, options_of(bits, -1, false, false, false, 32), "w", {});
      QVERIFY(fraction_equal(result.codes, codes_by_downdates(w, h, bits, 0.01)) > 0.999);
    }
  }

  void lossIdentity_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("groupSize");
    QTest::addColumn<bool>("actOrder");
    QTest::addColumn<bool>("staticGroups");
    QTest::addColumn<bool>("fresh");
    QTest::addColumn<int>("blockSize");
    for (const int bits : {2, 3, 4, 8}) {
      for (const int group : {-1, 24, 64}) {
        for (const bool act : {false, true}) {
          for (const bool fixed : {false, true}) {
            if (fixed && group < 0) continue;
            for (const bool fresh : {false, true}) {
              QTest::addRow("b%d g%d act%d static%d fresh%d", bits, group, act, fixed, fresh)
                  << bits << group << act << fixed << fresh << (bits == 3 ? 40 : 128);
            }
          }
        }
      }
    }
  }

  /// The errors that were propagated are the error of the output: Σ loss = ½ tr(ΔW H ΔWᵀ), whatever the settings; with
  /// dead columns, a last group of 8 columns, and better than rounding.
  void lossIdentity() {
    QFETCH(int, bits);
    QFETCH(int, groupSize);
    QFETCH(bool, actOrder);
    QFETCH(bool, staticGroups);
    QFETCH(bool, fresh);
    QFETCH(int, blockSize);
    at::manual_seed(9);
    const std::int64_t features = 200;
    const at::Tensor w = at::randn({33, features});
    at::Tensor x = inputs(500, features);
    x.select(1, 17).zero_();
    x.select(1, 130).zero_();
    const at::Tensor h = hessian_of(x);
    const GptqOptions options = options_of(bits, groupSize, actOrder, staticGroups, fresh, blockSize);
    const GptqResult result = gptq(w, h, options, "w", {});
    QCOMPARE(result.dead_columns, std::int64_t{2});
    QCOMPARE(result.values.select(1, 17).abs().max().item<float>(), 0.0F);
    at::Tensor kept = w.clone();
    kept.select(1, 17).zero_();
    kept.select(1, 130).zero_();
    const double expected = damped_loss(kept - result.values, h, options.percdamp);
    QVERIFY2(std::abs(result.loss / expected - 1.0) < 1e-3, qPrintable(QString::number(result.loss / expected)));
    const double undamped = proxy_loss(kept - result.values, h);
    QVERIFY(std::abs(result.undamped_loss / undamped - 1.0) < 1e-2);

    const std::int64_t group = groupSize > 0 ? groupSize : features;
    double rounded = 0.0;
    at::Tensor nearest = at::empty_like(w);
    for (std::int64_t begin = 0; begin < features; begin += group) {
      const std::int64_t columns = std::min(group, features - begin);
      nearest.narrow(1, begin, columns)
          .copy_(quantize_affine(w.narrow(1, begin, columns).contiguous(), options.affine).values);
    }
    rounded = proxy_loss(w - nearest, h);
    // No theorem: at 2 bits the last columns may not be able to absorb what came before.
    if (bits > 2) QVERIFY(undamped < rounded);

    const at::Tensor index = result.group_index.to(at::kLong);
    const at::Tensor rebuilt =
        result.scale.index_select(1, index) * (result.codes.to(at::kFloat) - result.zero_point.index_select(1, index));
    QVERIFY(rebuilt.equal(result.values));
  }

  void independentInputsMeanRoundingToNearest() {
    at::manual_seed(2);
    const at::Tensor w = at::randn({16, 96});
    WeightQuantizer rounding;
    rounding.affine.scale_type = ScaleType::F32;
    rounding.granularity = Granularity::Group;
    rounding.group_size = 32;
    const GptqResult result = gptq(w, at::eye(96) * 3.0, options_of(4, 32, false, false, false), "w", {});
    QVERIFY(result.codes.equal(quantize_weight_codes(w, rounding, "w").codes));
  }

  void freshStatisticsDoNotDependOnTheBlock() {
    at::manual_seed(3);
    const at::Tensor w = at::randn({32, 256}), h = hessian_of(inputs(600, 256));
    const at::Tensor codes = gptq(w, h, options_of(3, 32, false, false, true, 128), "w", {}).codes;
    for (const std::int64_t block : {1, 16, 48, 256}) {
      QVERIFY(gptq(w, h, options_of(3, 32, false, false, true, block), "w", {}).codes.equal(codes));
    }
    const at::Tensor stale = gptq(w, h, options_of(3, 32, false, false, false, 128), "w", {}).codes;
    QVERIFY(fraction_equal(stale, codes) < 0.95);
    // A group that is a whole block sees everything either way.
    const at::Tensor whole = gptq(w, h, options_of(3, 32, false, false, false, 32), "w", {}).codes;
    QVERIFY(whole.equal(codes));
  }

  void groupIndexFollowsTheProcessingOrder() {
    at::manual_seed(4);
    const at::Tensor w = at::randn({8, 64}), h = hessian_of(inputs(200, 64));
    const GptqResult moving = gptq(w, h, options_of(4, 16, true, false, false), "w", {});
    for (std::int64_t place = 0; place < 64; ++place) {
      QCOMPARE(moving.group_index[moving.order[place].item<std::int64_t>()].item<int>(), static_cast<int>(place / 16));
    }
    const at::Tensor sorted = at::diagonal(h).index_select(0, moving.order);
    QVERIFY((sorted.narrow(0, 0, 63) >= sorted.narrow(0, 1, 63)).all().item<bool>());
    const GptqResult fixed = gptq(w, h, options_of(4, 16, true, true, false), "w", {});
    QVERIFY(fixed.group_index.equal((at::arange(64, at::kInt) / 16).to(at::kInt).floor()));
  }

  void layerWithoutInputIsRoundedToNearest() {
    at::manual_seed(6);
    const at::Tensor w = at::randn({8, 40});
    for (const at::Tensor& h : {at::zeros({40, 40}), at::Tensor()}) {
      const GptqResult result = gptq(w, h, options_of(4, -1, true, false, false), "w", {});
      QVERIFY(result.rounded_to_nearest && !result.notes.empty());
      QVERIFY(result.codes.equal(quantize_weight_codes(w, WeightQuantizer{}, "w").codes));
    }
  }

  void hessianThatCannotBeFactorizedIsRoundedToNearest() {
    at::manual_seed(6);
    const at::Tensor w = at::randn({8, 2});
    const at::Tensor h = at::tensor({1.0F, 50.0F, 50.0F, 1.0F}).view({2, 2});
    const GptqResult result = gptq(w, h, options_of(4, -1, false, false, false), "w", {});
    QVERIFY(result.rounded_to_nearest);
    QVERIFY(QString::fromStdString(result.notes.front()).contains("positive definite"));
  }

  void oneTokenIsEnough() {
    at::manual_seed(7);
    const at::Tensor w = at::randn({8, 48});
    const GptqResult result = gptq(w, hessian_of(at::randn({1, 48})), options_of(4, -1, true, false, false), "w", {});
    QVERIFY(!result.rounded_to_nearest);
    QVERIFY(at::isfinite(result.values).all().item<bool>());
  }

  void brokenWeightIsNamed() {
    at::Tensor w = at::ones({3, 4});
    w[1][2] = std::numeric_limits<float>::quiet_NaN();
    try {
      gptq(w, at::eye(4), GptqOptions{}, "layers.0.mlp.up_proj", {});
      QFAIL("NaN went through");
    } catch (const Error& error) {
      const QString message = error.what();
      QVERIFY(message.contains("row 1") && message.contains("column 2") && message.contains("up_proj"));
    }
    QVERIFY_THROWS_EXCEPTION(Error, gptq(at::ones({3, 4}), at::eye(4), options_of(4, -1, false, true, false), "w", {}));
  }

  void stopIsNoticedWithinASecond_data() {
    QTest::addColumn<int>("stage");
    QTest::addRow("hessian") << 0;
    QTest::addRow("factor") << 1;
    QTest::addRow("sweep") << 2;
  }

  void stopIsNoticedWithinASecond() {
    QFETCH(int, stage);
    using Clock = std::chrono::steady_clock;
    std::stop_source stop;
    Clock::time_point asked;
    const std::vector<std::string> steps = {"Accumulating the Hessian", "Factorizing", "Quantizing columns"};
    const JobContext job(stop.get_token(), [&](double, std::string_view step) {
      if (step != steps[static_cast<std::size_t>(stage)] || stop.stop_requested()) return;
      asked = Clock::now();
      stop.request_stop();
    });
    at::manual_seed(8);
    const std::int64_t features = 1024;
    bool cancelled = false;
    try {
      HessianSum sum(features);
      sum.add(at::randn({512, features}), 1, job);
      gptq(at::randn({512, features}), sum.matrix("w"), options_of(4, -1, true, false, false), "w", job);
    } catch (const Cancelled&) {
      cancelled = true;
    }
    QVERIFY(cancelled);
    QVERIFY(Clock::now() - asked < std::chrono::seconds(1));
  }

  void packedCodesInProcessingOrderGiveTheReference_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("groupSize");
    QTest::addColumn<bool>("staticGroups");
    for (const int bits : {2, 3, 4, 5, 8}) {
      for (const int group : {-1, 32, 48}) {
        QTest::addRow("b%d g%d", bits, group) << bits << group << false;
        if (group > 0) QTest::addRow("b%d g%d static", bits, group) << bits << group << true;
      }
    }
  }

  /// Groups of 48 leave a last group of 32 columns.
  void packedCodesInProcessingOrderGiveTheReference() {
    QFETCH(int, bits);
    QFETCH(int, groupSize);
    QFETCH(bool, staticGroups);
    at::manual_seed(11);
    const at::Tensor w = at::randn({40, 128}), h = hessian_of(inputs(300, 128)), bias = at::randn({40});
    GptqOptions options = options_of(bits, groupSize, true, staticGroups, false);
    options.affine.scale_type = ScaleType::F16;
    const GptqResult result = gptq(w, h, options, "w", {});
    WeightCodes codes{result.codes, result.scale, result.zero_point, result.values, {}};
    const bool gathers = groupSize > 0 && !staticGroups;
    if (gathers) {
      codes.order = result.order;
      codes.codes = result.codes.index_select(1, result.order);
    }
    WeightQuantizer quantizer;
    quantizer.affine = options.affine;
    quantizer.group_size = groupSize;
    quantizer.granularity = groupSize > 0 ? Granularity::Group : Granularity::PerChannel;
    const PackedLinear packed(codes, quantizer, bias, {});
    QVERIFY(packed.weight().equal(result.values));
    for (const std::int64_t tokens : {1, 5, 40}) {
      const at::Tensor x = at::randn({tokens, 128}), expected = at::linear(x, result.values, bias);
      QVERIFY(((packed.apply(x) - expected).norm() / expected.norm()).item<double>() < 1e-5);
    }
    const std::int64_t groups = group_count(128, groupSize), bits_stored = 40 * 128 * bits + 40 * groups * (16 + bits);
    const std::int64_t expected_bytes = (bits_stored + 7) / 8 + 40 * 4 + (gathers ? 128 * 4 : 0);
    QVERIFY(std::abs(packed.bytes() - expected_bytes) <= 2);
  }
};

QTEST_GUILESS_MAIN(TestGptq)
#include "tst_gptq.moc"
