#include <QTemporaryDir>
#include <QtTest>

#include "backend/evaluation/kv_auto.h"
#include "backend/method_registry.h"
#include "backend/model/threads.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

const std::shared_ptr<const Model>& sample() {
  static const auto model = Model::load(QS_RESOURCES "/sample/sample-hf", {}, {});
  return model;
}

KvAutoRequest request(std::initializer_list<const char*> candidates, double bits) {
  KvAutoRequest result;
  for (const char* line : candidates)
    result.candidates.push_back(parse_kv_setup(line).value_or(Setup{.method = "none", .params = {}}));
  result.budget_bits = bits;
  result.evaluation.text = read_text(QS_RESOURCES "/texts/sample-valid.txt");
  result.evaluation.window = 64;
  result.evaluation.windows = 1;
  return result;
}

QString refusal(const KvAutoRequest& request) {
  try {
    choose_kv_setups(sample(), request, {});
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
  return {};
}

constexpr const char* kTwo = "kivi:g=16,r=16";
constexpr const char* kEight = "kivi:k=8,v=8,g=16,r=16";

}  // namespace

class TestKvAuto : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void initTestCase() { set_threads(1); }

  void bytesATokenAreBits() {
    // 6 layers of 2 heads of 64, keys and values: 1536 elements a token.
    QCOMPARE(bits_of_bytes_a_token(sample()->spec(), 1536.0 * 2.0), 16.0);
    KvAutoResult result;
    result.elements_a_token = 1536;
    QCOMPARE(result.bytes_a_token(16.0), 3072.0);
  }

  void aBudgetAtALongerContextAllowsMoreBits() {
    KvAutoRequest at_window = request({kTwo, kEight}, 7.0), at_context = at_window;
    const KvAutoResult short_cache = choose_kv_setups(sample(), at_window, {});
    at_context.budget_tokens = 2048;
    const KvAutoResult long_cache = choose_kv_setups(sample(), at_context, {});
    QCOMPARE(short_cache.budget_tokens, std::int64_t(64));
    QCOMPARE(long_cache.budget_tokens, std::int64_t(2048));
    // The window of 16 tokens weighs less in a long cache, so the same budget holds more layers of 8 bits.
    QVERIFY(long_cache.candidates[0].bits < short_cache.candidates[0].bits);
    const auto eights = [](const KvAutoResult& result) {
      return std::count(result.choice.begin(), result.choice.end(), 1);
    };
    QVERIFY(eights(long_cache) > eights(short_cache));
  }

  void aStoppedSearchGoesOnWhereItStopped() {
    const QTemporaryDir folder;
    KvAutoRequest whole = request({kTwo, kEight}, 8.0);
    const KvAutoResult fresh = choose_kv_setups(sample(), whole, {});
    QCOMPARE(fresh.remembered, std::int64_t(0));
    QCOMPARE(fresh.measured, std::int64_t(6 * 2 + 3));

    whole.folder = folder.path().toStdString();
    std::stop_source stop;
    int steps = 0;
    const JobContext stopped(stop.get_token(), [&](double, std::string_view) {
      if (++steps == 6) stop.request_stop();
    });
    QVERIFY_EXCEPTION_THROWN(choose_kv_setups(sample(), whole, stopped), Cancelled);
    const KvAutoResult resumed = choose_kv_setups(sample(), whole, {});
    QVERIFY2(resumed.remembered > 0, std::to_string(resumed.remembered).c_str());
    QCOMPARE(resumed.remembered + resumed.measured, fresh.measured);
    QCOMPARE(resumed.setup, fresh.setup);
    QCOMPARE(resumed.predicted_kl, fresh.predicted_kl);
    QCOMPARE(resumed.measured_kl, fresh.measured_kl);
    // Another window is another measurement; another budget is not.
    whole.budget_bits = 9.0;
    QVERIFY(choose_kv_setups(sample(), whole, {}).measured <= 1);
    whole.evaluation.window = 48;
    QCOMPARE(choose_kv_setups(sample(), whole, {}).remembered, std::int64_t(0));
  }

  void aBrokenFileOfMeasurementsIsMadeAgain() {
    const QTemporaryDir folder;
    KvAutoRequest whole = request({kTwo, "none"}, 16.0);
    whole.folder = folder.path().toStdString();
    choose_kv_setups(sample(), whole, {});
    const QStringList files = QDir(folder.path()).entryList({QStringLiteral("kv-auto-*.json")});
    QCOMPARE(files.size(), 1);
    QFile file(folder.filePath(files.first()));
    QVERIFY(file.open(QIODevice::WriteOnly) && file.write("{\"a\": ") > 0);
    file.close();
    QCOMPARE(choose_kv_setups(sample(), whole, {}).remembered, std::int64_t(0));
    QVERIFY(choose_kv_setups(sample(), whole, {}).measured == 0);
  }

  void aCandidateThatQuantizesNothingIsNamed() {
    const QString why = refusal(request({"kivi:g=16,r=128", kEight}, 9.0));
    QVERIFY2(why.contains(QLatin1String("'kivi:group_size=16'")), qPrintable(why));
    QVERIFY2(why.contains(QLatin1String("windows of 64 tokens")), qPrintable(why));
  }

  void calibratedCandidatesTakePart() {
    const QTemporaryDir folder;
    KvAutoRequest whole = request({"skvq:group_size=64,window=16,sink_tokens=0", kEight}, 9.0);
    whole.folder = folder.path().toStdString();
    whole.calibration = read_text(QS_RESOURCES "/texts/wiki.test.raw");
    whole.calibration.text.resize(3000);
    const KvAutoResult result = choose_kv_setups(sample(), whole, {});
    QCOMPARE(result.calibration, std::string("wiki.test.raw"));
    QVERIFY(result.bits <= 9.0 + 1e-6);
    for (const double kl : result.candidates[0].layer_kl) QVERIFY(kl > 0.0);
  }

  void candidatesThatCannotShareACalibrationAreNamed() {
    KvAutoRequest two = request({"skvq:group_size=64,window=16,sink_tokens=0", "kvquant:bits=3"}, 9.0);
    two.calibration = two.evaluation.text;
    two.calibration.text.resize(3000);
    const QString why = refusal(two);
    QVERIFY2(why.contains(QLatin1String("kvquant:bits=3")) && why.contains(QLatin1String("different calibrations")),
             qPrintable(why));
    QVERIFY(refusal(request({}, 3.0)).contains(QLatin1String("at least one")));
    QVERIFY(refusal(request({"layers:0=kivi;*=none"}, 3.0)).contains(QLatin1String("one layer")));
  }
};

QTEST_GUILESS_MAIN(TestKvAuto)
#include "tst_kv_auto.moc"
