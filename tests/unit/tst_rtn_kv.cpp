#include <ATen/ATen.h>

#include <QtTest>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/types/error.h"
#include "tests/support/kv_random.h"

using namespace qs;

namespace {

std::unique_ptr<KvMethod> method(const std::string& setup) { return make_kv_method(parse_kv_setup(setup).value()); }

template <typename Call>
QString message_of(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
  return "(no error)";
}

}  // namespace

class TestRtnKv : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void errorOfARampStaysBelowHalfAStep() {
    const at::Tensor x = at::linspace(-1, 1, 128).view({1, 1, 128});
    const at::Tensor seen = method("rtn:bits=4,group_size=64,store=f32")->quantize(x, KvRole::Key, {}).values;
    const double step = 63.0 / 127.0 * 2.0 / 15.0;
    QVERIFY((seen - x).abs().max().item<double>() <= 0.5 * step + 1e-6);
  }

  void oneBitKeepsTwoLevelsExactly() {
    const at::Tensor x = at::tensor({-2.0f, 3.0f}).repeat({1, 5, 16});
    QVERIFY(method("rtn:bits=1,group_size=32")->quantize(x, KvRole::Value, {}).values.equal(x));
  }

  void groupsRunOverTheHeadsOfAToken() {
    // Head 0 is small, head 1 large: one group over both heads rounds the small one away, two groups do not.
    at::Tensor x = at::cat({at::linspace(0, 1, 32).view({1, 1, 32}), at::linspace(0, 1000, 32).view({1, 1, 32})});
    const at::Tensor whole = method("rtn:bits=4,group_size=64")->quantize(x, KvRole::Key, {}).values;
    QVERIFY(whole[0].eq(0).all().item<bool>());
    const at::Tensor by_head = method("rtn:bits=4,group_size=32")->quantize(x, KvRole::Key, {}).values;
    QVERIFY((by_head[0] - x[0]).abs().max().item<double>() < 0.04);
    QVERIFY(method("rtn:bits=4,group_size=0")->quantize(x, KvRole::Key, {}).values.equal(whole));
  }

  void everyTokenIsQuantizedByItself() {
    std::mt19937_64 generator(1);
    const at::Tensor x = test::random_kv(generator, {2, 9, 64});
    const auto rtn = method("rtn:bits=3,group_size=32");
    const at::Tensor all = rtn->quantize(x, KvRole::Value, {}).values;
    for (std::int64_t t = 0; t < 9; ++t) {
      QVERIFY(rtn->quantize(x.narrow(1, t, 1), KvRole::Value, {}).values.equal(all.narrow(1, t, 1)));
    }
  }

  void twoSymmetricBitsAreTernary() {
    const at::Tensor x = at::tensor({-4.0f, -1.9f, 0.0f, 1.9f, 2.1f, 4.0f, 0.0f, 0.0f}).view({1, 1, 8});
    const QuantizedTensor quantized = method("rtn:scheme=token_sym,bits=2")->quantize(x, KvRole::Key, {});
    QVERIFY(quantized.values.view({-1}).equal(at::tensor({-4.0f, 0.0f, 0.0f, 0.0f, 4.0f, 4.0f, 0.0f, 0.0f})));
    QCOMPARE(quantized.levels, std::int64_t{3});
    QCOMPARE(quantized.codes.max().item<int>(), 2);
  }

  void channelKeysOverAllTokensAreForAnalysisOnly() {
    const auto whole = method("rtn:scheme=channel_asym,group_size=0");
    QVERIFY(!whole->cannot_stream().empty());
    const QString message = message_of([&] { whole->make_cache({.heads = 2, .kv_heads = 2, .head_dim = 64}); });
    QVERIFY2(message.contains("group_size"), qPrintable(message));
    QVERIFY(method("rtn:scheme=channel_asym,group_size=32")->cannot_stream().empty());
    std::mt19937_64 generator(2);
    const QuantizedTensor quantized = whole->quantize(test::random_kv(generator, {2, 50, 32}), KvRole::Key, {});
    QCOMPARE(quantized.scale.sizes().vec(), (std::vector<std::int64_t>{2, 1, 32}));
  }

  void anUnfinishedBlockOfChannelKeysStaysInFullPrecision() {
    const auto rtn = method("rtn:scheme=channel_asym,group_size=32");
    QCOMPARE(rtn->after_prefill(KvRole::Key, 70).size(), std::int64_t{64});
    QCOMPARE(rtn->after_prefill(KvRole::Value, 70).size(), std::int64_t{70});
    // The token that completes a block is quantized before attention sees it.
    QCOMPARE(rtn->seen_by_query(KvRole::Key, 31).size(), std::int64_t{32});
    QCOMPARE(rtn->seen_by_query(KvRole::Value, 31).size(), std::int64_t{32});
  }

  void aGroupThatDoesNotDivideTheTokenNamesTheNearest() {
    const QString message =
        message_of([&] { method("rtn:group_size=100")->check_fits({.heads = 4, .kv_heads = 2, .head_dim = 64}); });
    QVERIFY2(message.contains("128 channels") && message.contains("nearest that fits is 128"), qPrintable(message));
  }

  void effectiveBitsCountScalesAndMinima() {
    const CacheShape shape{.heads = 2, .kv_heads = 2, .head_dim = 64};
    QCOMPARE(method("rtn")->effective_bits(shape, 10), 4.25);
    QCOMPARE(method("rtn:scheme=token_sym")->effective_bits(shape, 10), 4.125);
    QCOMPARE(method("rtn:bits=2,group_size=32,store=f32")->effective_bits(shape, 10), 4.0);
    QCOMPARE(method("rtn:scheme=channel_asym,bits=2,group_size=32")->effective_bits(shape, 64), 3.0);
  }
};

QTEST_APPLESS_MAIN(TestRtnKv)
#include "tst_rtn_kv.moc"
