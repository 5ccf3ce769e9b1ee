#include <ATen/ATen.h>

#include <QTest>
#include <cmath>
#include <limits>

#include "backend/methods/hessian.h"
#include "backend/methods/spqr.h"
#include "backend/methods/spqr_grid.h"
#include "backend/methods/spqr_linear.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

at::Tensor inputs(std::int64_t tokens, std::int64_t features) {
  at::manual_seed(1);
  const at::Tensor mix = at::randn({features, features}) / std::sqrt(static_cast<double>(features)) + at::eye(features);
  return at::mm(at::randn({tokens, features}), mix) * at::exp(at::randn({features}));
}

at::Tensor hessian_of(const at::Tensor& x) {
  HessianSum sum(x.size(1));
  sum.add(x, 1, {});
  return sum.matrix("w");
}

/// A weight with a few values far outside their rows.
at::Tensor weight_with_outliers(std::int64_t rows, std::int64_t columns) {
  at::manual_seed(2);
  const at::Tensor w = at::randn({rows, columns});
  return at::where(at::rand({rows, columns}) < 0.01, w * 8.0, w);
}

double squared_error(const RealZeroGrid& grid, float v, float d, float top) {
  const double error = (static_cast<double>(grid.value(grid.code(v, top))) - v) / d;
  return error * error;
}

/// Q2 as it is written: fit the group without i, add up the rest.
std::vector<double> gains_as_defined(const std::vector<float>& v, const std::vector<float>& d, int bits, bool sym) {
  const float top = static_cast<float>((1 << bits) - 1);
  const auto total = [&](std::size_t without) {
    float low = std::numeric_limits<float>::infinity(), high = -low;
    for (std::size_t k = 0; k < v.size(); ++k) {
      if (k != without) low = std::min(low, v[k]), high = std::max(high, v[k]);
    }
    const RealZeroGrid grid = real_zero_grid(low, high, bits, sym, false);
    double sum = 0.0;
    for (std::size_t k = 0; k < v.size(); ++k) {
      if (k != without) sum += squared_error(grid, v[k], d[k], top);
    }
    return sum;
  };
  std::vector<double> gains;
  for (std::size_t i = 0; i < v.size(); ++i) gains.push_back(total(v.size()) - total(i));
  return gains;
}

SpqrOptions exact_options() {
  SpqrOptions options;
  options.scale_type = ScaleType::F32;
  return options;
}

}  // namespace

class TestSpqr : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void leaveOneOutShortcutIsExact() {
    at::manual_seed(3);
    for (const int bits : {2, 3, 4}) {
      for (const bool sym : {false, true}) {
        for (int trial = 0; trial < 40; ++trial) {
          const std::int64_t size = 2 + trial % 15;
          // Rounded values make minima and maxima that are not single.
          const at::Tensor row = (at::randn({size}) * 3).round() / 3 + (trial % 2) * 0.01 * at::randn({size});
          const at::Tensor factor = at::rand({size}) + 0.5;
          const std::vector<float> v(row.data_ptr<float>(), row.data_ptr<float>() + size);
          const std::vector<float> d(factor.data_ptr<float>(), factor.data_ptr<float>() + size);
          std::vector<float> gain(v.size());
          leave_one_out_gains(v.data(), d.data(), size, bits, sym, gain.data());
          const std::vector<double> expected = gains_as_defined(v, d, bits, sym);
          for (std::size_t i = 0; i < v.size(); ++i) QVERIFY(std::abs(gain[i] - expected[i]) < 1e-4);
        }
      }
    }
  }

  void rangeNeedNotContainZero() {
    const RealZeroGrid grid = real_zero_grid(2.0F, 3.5F, 2, false, false);
    QCOMPARE(grid.scale, 0.5F);
    QCOMPARE(grid.zero, -4.0F);
    for (const float v : {2.0F, 2.5F, 3.0F, 3.5F}) QCOMPARE(grid.value(grid.code(v, 3.0F)), v);
    const RealZeroGrid constant = real_zero_grid(0.7F, 0.7F, 3, false, false);
    QCOMPARE(constant.scale, 2.0F / 7.0F);
  }

  void lossIdentity() {
    const at::Tensor w = weight_with_outliers(48, 160);
    at::Tensor x = inputs(400, 160);
    x.select(1, 33).zero_();
    const at::Tensor h = hessian_of(x);
    for (const double threshold : {std::numeric_limits<double>::infinity(), 0.3}) {
      for (const ColumnOrder order : {ColumnOrder::Identity, ColumnOrder::ActOrder, ColumnOrder::Spearman}) {
        SpqrOptions options = exact_options();
        options.outlier_threshold = threshold;
        options.order = order;
        const SpqrResult result = spqr(w, h, options, "w", {});
        QCOMPARE(result.dead_columns, std::int64_t{1});
        at::Tensor kept = w.clone(), damped = h.clone();
        kept.select(1, 33).zero_();
        damped.diagonal().add_(options.percdamp * h.diagonal().mean());
        damped[33][33] = 1.0;
        const double expected = proxy_loss(kept - result.values, damped);
        QVERIFY2(std::abs(result.loss / expected - 1.0) < 1e-3, qPrintable(QString::number(result.loss / expected)));
      }
    }
  }

  void resultDoesNotDependOnTheBlock() {
    const at::Tensor w = weight_with_outliers(32, 192), h = hessian_of(inputs(400, 192));
    for (const std::int64_t group : {std::int64_t{16}, std::int64_t{96}, std::int64_t{-1}}) {
      SpqrOptions options = exact_options();
      options.group_size = group;
      options.outlier_threshold = 0.3;
      const SpqrResult first = spqr(w, h, options, "w", {});
      for (const std::int64_t block : {16, 40, 192}) {
        options.block_size = block;
        const SpqrResult other = spqr(w, h, options, "w", {});
        QVERIFY(first.codes.equal(other.codes) && first.outlier_values.equal(other.outlier_values));
        QCOMPARE(first.loss, other.loss);
      }
    }
  }

  void thresholdSetsTheOutliers() {
    const at::Tensor w = weight_with_outliers(64, 128), h = hessian_of(inputs(400, 128));
    SpqrOptions options = exact_options();
    QCOMPARE(spqr(w, h, options, "w", {}).outlier_share, 0.0);
    double share = 1.0, loss = 0.0;
    for (const double threshold : {1e-9, 0.05, 0.2, 1.0, 5.0}) {
      options.outlier_threshold = threshold;
      const SpqrResult result = spqr(w, h, options, "w", {});
      QVERIFY(result.outlier_share <= share);
      QVERIFY(result.loss >= loss);
      share = result.outlier_share, loss = result.loss;
      if (threshold == 1e-9) {
        QVERIFY(result.outlier_share > 0.95);
        QVERIFY((result.values - w).abs().max().item<double>() < 1e-2);
      }
    }
    QVERIFY(share < 0.02);
  }

  void averageBitsOfTheRecipes() {
    SpqrOptions options;
    QCOMPARE(options.average_bits(4096, 0.0), 3.625);
    QVERIFY(std::abs(options.average_bits(4096, 0.0114) - 3.99) < 0.005);
    options.bits = 2;
    options.group_size = 32;
    QVERIFY(std::abs(options.average_bits(4096, 0.0237) - 3.07) < 0.005);
    options.group_size = -1;  // means the whole row here, unlike in a published script
    QCOMPARE(options.average_bits(64, 0.0), 2.0 + 6.0 / 64 + 64.0 / (64 * 16));
  }

  void bisectionReachesTheTarget() {
    const at::Tensor h = hessian_of(inputs(400, 128));
    const std::vector<SpqrLayer> layers = {{weight_with_outliers(64, 128), h, "a"}, {at::randn({32, 128}), h, "b"}};
    SpqrOptions options;
    const SpqrThreshold found = find_outlier_threshold(layers, options, 4.0, {});
    QVERIFY2(std::abs(found.average_bits - 4.0) < 0.05, qPrintable(QString::number(found.average_bits)));
    options.outlier_threshold = found.outlier_threshold;
    double bits = 0.0;
    for (const SpqrLayer& layer : layers) {
      bits += spqr(layer.weight, h, options, "w", {}).average_bits * static_cast<double>(layer.weight.size(0)) / 96.0;
    }
    QVERIFY(std::abs(bits - found.average_bits) < 1e-9);
    QVERIFY_THROWS_EXCEPTION(Error, find_outlier_threshold(layers, options, 3.5, {}));
  }

  void shapesThatDoNotFitAreRefused() {
    const at::Tensor w = at::randn({24, 100});
    SpqrOptions options;
    const auto message = [&](const SpqrOptions& o, const at::Tensor& order = {}) {
      try {
        spqr(w, at::eye(100), o, "layers.2.mlp.up_proj", {}, order);
      } catch (const Error& error) {
        return QString(error.what());
      }
      return QString();
    };
    QVERIFY(message(options).contains("does not divide the 100 input features") && message(options).contains("20"));
    options.group_size = 20;
    QVERIFY(message(options).contains("qq_group_size=16"));
    options.qq_group_size = 8;
    QVERIFY(message(options).isEmpty());
    QVERIFY(message(options, at::zeros({100}, at::kLong)).contains("no permutation"));
  }

  void layerWithoutInputIsRoundedToNearest() {
    const at::Tensor w = at::randn({16, 32});
    SpqrOptions options = exact_options();
    options.qq_scale_bits = options.qq_zero_bits = 0;
    options.outlier_threshold = 0.2;
    const SpqrResult result = spqr(w, at::zeros({32, 32}), options, "w", {});
    QVERIFY(result.rounded_to_nearest && result.outlier_share == 0.0 && !result.notes.empty());
    const at::Tensor half_step = result.scale.t().repeat_interleave(16, 1) / 2;
    QVERIFY(((result.values - w).abs() <= half_step + 1e-6).all().item<bool>());
  }

  void packedEqualsReference_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("groupSize");
    QTest::addColumn<int>("qqBits");
    QTest::addColumn<bool>("symmetric");
    QTest::addColumn<bool>("roundZero");
    for (const int bits : {2, 3, 4, 5, 8}) {
      for (const int group : {16, 32, -1})
        QTest::addRow("b%d g%d", bits, group) << bits << group << 3 << false << false;
    }
    QTest::addRow("plain statistics") << 3 << 16 << 0 << false << false;
    QTest::addRow("symmetric") << 4 << 32 << 3 << true << false;
    QTest::addRow("rounded zeros") << 3 << 16 << 3 << false << true;
    QTest::addRow("groups of 4") << 3 << 4 << 3 << false << false;
  }

  void packedEqualsReference() {
    QFETCH(int, bits);
    QFETCH(int, groupSize);
    QFETCH(int, qqBits);
    QFETCH(bool, symmetric);
    QFETCH(bool, roundZero);
    const std::int64_t out = 80, in = 128;
    const at::Tensor w = weight_with_outliers(out, in), h = hessian_of(inputs(300, in)), bias = at::randn({out});
    SpqrOptions options;
    options.bits = bits;
    options.group_size = groupSize;
    options.qq_scale_bits = options.qq_zero_bits = qqBits;
    options.symmetric = symmetric;
    options.round_zero = roundZero;
    options.outlier_threshold = 0.3;
    options.order = ColumnOrder::ActOrder;
    const SpqrResult result = spqr(w, h, options, "w", {});
    QVERIFY(result.outlier_values.numel() > 0);
    const SpqrLinear packed(result, options, bias);
    QVERIFY(packed.weight().equal(result.values));
    for (const std::int64_t tokens : {1, 3, 16, 40}) {
      const at::Tensor x = at::randn({tokens, in}), expected = at::linear(x, result.values, bias);
      const double error = ((packed.apply(x) - expected).norm() / expected.norm()).item<double>();
      QVERIFY2(error < 1e-4, qPrintable(QString::number(error)));
    }
    QCOMPARE(packed.apply(at::empty({0, in})).size(0), std::int64_t{0});
    // Q3 leaves out row pointers and the order; a zero that is rounded but not quantized takes 16 bits.
    if (!roundZero) {
      const double formula = result.average_bits * static_cast<double>(out * in) / 8.0;
      const double own = static_cast<double>(packed.bytes() - 4 * (out + 1) - 4 * in - 4 * out);
      QVERIFY2(std::abs(own - formula) <= 4.0, qPrintable(QString("%1 %2").arg(own).arg(formula)));
    }
  }
};

QTEST_GUILESS_MAIN(TestSpqr)
#include "tst_spqr.moc"
