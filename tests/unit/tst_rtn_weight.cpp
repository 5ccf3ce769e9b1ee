#include <ATen/ATen.h>

#include <QTest>
#include <cmath>
#include <limits>

#include "backend/method_registry.h"
#include "backend/methods/rtn_weight.h"
#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

std::unique_ptr<WeightMethod> rtn(const std::string& params) {
  return make_weight_method(*parse_weight_setup("rtn:" + params));
}

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

double largest(const at::Tensor& x) { return x.abs().max().item<double>(); }

}  // namespace

class TestRtnWeight : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void rampErrorStaysBelowHalfAStep() {
    const at::Tensor weight = at::linspace(-1.0, 1.0, 256).view({2, 128});
    const QuantizedTensor kept = rtn("bits=4,group_size=32,scale_dtype=f32")->quantize_weight(weight, "ramp");
    // The range holds 0: at most [-1, 0] or [0, 1] in 15 steps.
    QVERIFY(largest(kept.values - weight) <= 0.5 / 15.0 + 1e-6);
  }

  void zeroRowsReconstructToZero() {
    const QuantizedTensor kept = rtn("bits=2")->quantize_weight(at::zeros({3, 16}), "zeros");
    QCOMPARE(largest(kept.values), 0.0);
  }

  void twoLevelsWithZeroAreExact() {
    const at::Tensor weight = at::tensor({0.0f, 3.0f, 1.0f, 2.0f}).repeat({4}).view({1, 16});
    const QuantizedTensor kept = rtn("bits=2")->quantize_weight(weight, "levels");
    QVERIFY(at::equal(kept.values, weight));
  }

  void mseRangeIsNeverWorseThanMinmaxUnderItsNorm() {
    at::Tensor weight = at::sin(at::arange(4096, at::kFloat) * 0.37).pow(3).view({16, 256});
    weight.select(1, 7).fill_(4.0);
    const auto norm = [&](const std::string& range) {
      const at::Tensor kept = rtn("bits=3,scale_dtype=f32,range=" + range)->quantize_weight(weight, "w").values;
      return (kept - weight).abs().pow(2.4).sum(1);
    };
    QVERIFY((norm("mse") <= norm("minmax") * (1.0 + 1e-5)).all().item<bool>());
  }

  void symmetricOneSidedRowsAreClippedInReferenceModeOnly() {
    const at::Tensor weight = at::linspace(0.0, 1.0, 64).view({1, 64});
    const auto top = [&](const std::string& compat) {
      return rtn("bits=4,sym=true,scale_dtype=f32,compat_reference=" + compat)
          ->quantize_weight(weight, "w")
          .values.max()
          .item<double>();
    };
    QVERIFY(top("true") < 0.5);
    QVERIFY(top("false") > 0.9);
  }

  void perTensorHasOneScale() {
    const QuantizedTensor kept =
        rtn("bits=8,granularity=per_tensor")->quantize_weight(at::randn({4, 8}, at::kFloat), "w");
    QCOMPARE(kept.scale.numel(), std::int64_t{1});
  }

  void effectiveBitsFollowTheTable() {
    QVERIFY(std::abs(rtn("bits=4,group_size=128")->effective_bits(4096, 4096) - 4.15625) < 1e-9);
    QVERIFY(std::abs(rtn("bits=3,group_size=128")->effective_bits(4096, 4096) - 3.1484375) < 1e-9);
    QVERIFY(std::abs(rtn("bits=4,group_size=128,sym=true")->effective_bits(4096, 4096) - 4.125) < 1e-9);
  }

  void nanIsRefusedWithRowAndColumn() {
    at::Tensor weight = at::ones({4, 8});
    weight[2][5] = std::numeric_limits<float>::quiet_NaN();
    const std::string message = message_of([&] { rtn("bits=4")->quantize_weight(weight, "layers.0.mlp.up_proj"); });
    QVERIFY(message.find("layers.0.mlp.up_proj") != std::string::npos);
    QVERIFY(message.find("row 2, column 5") != std::string::npos);
  }

  void groupThatDoesNotDivideNamesTheNearest() {
    const std::string message = message_of([&] {
      rtn("bits=4,group_size=100")->quantize_weight(at::ones({4, 256}), "w");
    });
    QVERIFY(message.find("128") != std::string::npos);
  }

  void widthsBetweenNineAndFifteenAreRefused() {
    QVERIFY(message_of([&] { rtn("bits=12"); }).find("16 for off") != std::string::npos);
  }

  void storingFirstQuantizesTheRoundedGrid() {
    const at::Tensor weight = at::randn({8, 64}, at::kFloat) * 3.0;
    const QuantizedTensor kept = rtn("bits=4,store_then_quantize=true")->quantize_weight(weight, "w");
    const QuantizedTensor again = rtn("bits=4,store_then_quantize=true")->quantize_weight(weight, "w");
    QVERIFY(at::equal(kept.codes, again.codes));
    // Nearest on the stored grid: no neighbouring code is nearer.
    const at::Tensor error = (kept.values - weight).abs();
    const at::Tensor inside = kept.codes.gt(0).logical_and(kept.codes.lt(15));
    QVERIFY((error <= kept.scale * 0.5 + 1e-5).logical_or(inside.logical_not()).all().item<bool>());
  }

  void activationsAreQuantizedTokenByToken() {
    ActivationQuantization activations;
    activations.bits = 8;
    const at::Tensor x = at::randn({5, 32}, at::kFloat);
    const at::Tensor whole = fake_quantize(x, activations);
    for (std::int64_t token = 0; token < 5; ++token) {
      QVERIFY(at::equal(whole[token], fake_quantize(x.narrow(0, token, 1), activations)[0]));
    }
    const at::Tensor step = (x.amax(1, true).clamp_min(0) - x.amin(1, true).clamp_max(0)) / 255.0;
    QVERIFY(((whole - x).abs() <= step * 0.51 + 1e-6).all().item<bool>());
  }
};

QTEST_GUILESS_MAIN(TestRtnWeight)
#include "tst_rtn_weight.moc"
