#include <ATen/ATen.h>

#include <QTest>

#include "backend/methods/packed_linear.h"
#include "backend/model/variant.h"

using namespace qs;

namespace {

struct Layer {
  WeightQuantizer quantizer;
  ActivationQuantization activations;
  at::Tensor weight, bias;
  WeightCodes codes;

  std::shared_ptr<const LinearOp> make(WeightExecution execution) const {
    return make_quantized_linear(codes, quantizer, bias, activations, execution, at::kFloat);
  }
};

Layer make_layer(int bits, std::int64_t group_size, Granularity granularity, bool symmetric, QuantizerKind kind,
                 int bits_a, std::int64_t out_features = 72, std::int64_t in_features = 128) {
  Layer layer;
  layer.quantizer.kind = kind;
  layer.quantizer.affine.bits = bits;
  layer.quantizer.affine.symmetric = symmetric;
  layer.quantizer.granularity = granularity;
  layer.quantizer.group_size = group_size;
  layer.activations.bits = bits_a;
  layer.activations.quantizer = kind;
  layer.weight = at::sin(at::arange(out_features * in_features, at::kFloat) * 0.7311).view({out_features, in_features});
  layer.bias = at::cos(at::arange(out_features, at::kFloat));
  layer.codes = quantize_weight_codes(layer.weight, layer.quantizer, "w");
  return layer;
}

}  // namespace

class TestPackedLinear : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void packedEqualsSimulated_data() {
    QTest::addColumn<int>("bits");
    QTest::addColumn<int>("groupSize");
    QTest::addColumn<int>("granularity");
    QTest::addColumn<bool>("symmetric");
    QTest::addColumn<bool>("absmax");
    QTest::addColumn<int>("bitsA");
    for (const int bits : {2, 3, 4, 5, 6, 7, 8}) {
      for (const int group : {-1, 32}) {
        for (const bool symmetric : {false, true}) {
          const int granularity = static_cast<int>(group > 0 ? Granularity::Group : Granularity::PerChannel);
          QTest::addRow("b%d g%d sym%d", bits, group, symmetric)
              << bits << group << granularity << symmetric << false << 16;
        }
      }
    }
    QTest::addRow("group 4") << 4 << 4 << static_cast<int>(Granularity::Group) << false << false << 16;
    QTest::addRow("per tensor") << 4 << -1 << static_cast<int>(Granularity::PerTensor) << false << false << 16;
    QTest::addRow("w8a8 affine") << 8 << -1 << static_cast<int>(Granularity::PerChannel) << false << false << 8;
    QTest::addRow("w8a8 per tensor") << 8 << -1 << static_cast<int>(Granularity::PerTensor) << false << false << 8;
    QTest::addRow("w8a8 absmax") << 8 << -1 << static_cast<int>(Granularity::PerChannel) << false << true << 8;
    QTest::addRow("w8a4 symmetric") << 8 << -1 << static_cast<int>(Granularity::PerChannel) << true << false << 4;
    QTest::addRow("w4a8") << 4 << 32 << static_cast<int>(Granularity::Group) << false << false << 8;
  }

  /// Both forms multiply the same numbers; only the order of the f32 sums differs.
  void packedEqualsSimulated() {
    QFETCH(int, bits);
    QFETCH(int, groupSize);
    QFETCH(int, granularity);
    QFETCH(bool, symmetric);
    QFETCH(bool, absmax);
    QFETCH(int, bitsA);
    const Layer layer = make_layer(bits, groupSize, static_cast<Granularity>(granularity), symmetric,
                                   absmax ? QuantizerKind::Absmax : QuantizerKind::Affine, bitsA);
    const auto simulated = layer.make(WeightExecution::Simulated), packed = layer.make(WeightExecution::Packed);
    QVERIFY(packed->packed() && !simulated->packed());
    QVERIFY(at::allclose(packed->weight(), simulated->weight(), 0.0, 0.0));
    for (const std::int64_t tokens : {1, 5, 40}) {
      const at::Tensor x = at::cos(at::arange(tokens * 128, at::kFloat) * 0.913).view({tokens, 128});
      const at::Tensor expected = simulated->apply(x), actual = packed->apply(x);
      const double difference = (actual - expected).norm().item<double>() / expected.norm().item<double>();
      QVERIFY2(difference < 2e-5, qPrintable(QString::number(difference)));
    }
  }

  void allocatedBytesFollowTheFormula() {
    for (const int bits : {2, 3, 4, 6, 8}) {
      for (const bool symmetric : {false, true}) {
        const Layer layer = make_layer(bits, 32, Granularity::Group, symmetric, QuantizerKind::Affine, 16);
        const std::int64_t bias_bytes = layer.bias.numel() * 4;
        const double formula = layer.quantizer.effective_bits(72, 128) * 72.0 * 128.0 / 8.0;
        QVERIFY(std::abs(static_cast<double>(layer.make(WeightExecution::Packed)->bytes() - bias_bytes) - formula) <
                2.0);
      }
    }
  }

  void rowsThatFillNoTileAreComputed() {
    const Layer layer = make_layer(4, 8, Granularity::Group, false, QuantizerKind::Affine, 16, 19, 24);
    const at::Tensor x = at::ones({2, 24});
    QVERIFY(at::allclose(layer.make(WeightExecution::Packed)->apply(x),
                         layer.make(WeightExecution::Simulated)->apply(x), 1e-5, 1e-5));
  }

  void noTokensGiveNoRows() {
    const Layer layer = make_layer(4, 32, Granularity::Group, false, QuantizerKind::Affine, 8);
    QCOMPARE(layer.make(WeightExecution::Packed)->apply(at::empty({0, 128}, at::kFloat)).size(0), std::int64_t{0});
  }
};

QTEST_GUILESS_MAIN(TestPackedLinear)
#include "tst_packed_linear.moc"
