#include <QtTest>

#include "backend/evaluation/solve_bits.h"
#include "backend/method_registry.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

ArchitectureSpec small_spec() {
  ArchitectureSpec spec;
  spec.layers = 3;
  spec.heads = 4;
  spec.kv_heads = 2;
  spec.head_dim = 64;
  spec.hidden_size = 256;
  spec.intermediate_size = 704;
  spec.max_context = 4096;
  return spec;
}

const BitsShape& shape() {
  static const BitsShape made = bits_shape(small_spec(), 2048);
  return made;
}

BitsSolution solve_kv(const char* line, const char* key, double bits) {
  return solve_kv_bits(*parse_kv_setup(line), key, bits, shape());
}

BitsSolution solve_weights(const char* line, const char* key, double bits) {
  return solve_weight_bits(*parse_weight_setup(line), key, bits, shape());
}

QString refusal(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
  return {};
}

/// The largest bits not above the target over every value of the domain that fits.
double brute_force(const char* line, const char* key, double target, int from, int to, bool kv) {
  double best = -1.0;
  const Setup given = kv ? *parse_kv_setup(line) : *parse_weight_setup(line);
  MethodInfo method;
  for (const MethodInfo& info : kv ? kv_method_infos() : weight_method_infos()) {
    if (info.id == given.method) method = info;
  }
  for (int value = from; value <= to; ++value) {
    Setup setup = given;
    setup.params[key] = value;
    if (!check(method.params, setup.params).empty()) continue;
    try {
      const double bits = kv ? kv_setup_bits(setup, shape()) : weight_setup_bits(setup, shape());
      if (bits <= target + 1e-9) best = std::max(best, bits);
    } catch (const Error&) {
      // does not fit
    }
  }
  return best;
}

}  // namespace

class TestSolveBits : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void bitsAreTheMethodsOwnFormula() {
    BitsShape without_window = shape();
    const auto setup = parse_kv_setup("rtn:bits=4,group_size=64");
    QCOMPARE(kv_setup_bits(setup, without_window), 4.0 + 32.0 / 64.0);
    QCOMPARE(kv_setup_bits(std::nullopt, without_window), 16.0);
    QCOMPARE(kv_setup_bits(parse_kv_setup("layers:0=rtn:bits=4,group_size=64;*=none"), without_window),
             (4.5 + 16.0 + 16.0) / 3.0);
    // Rows of 256 and of 704 inputs, weighed by their sizes.
    const double big = 3.0 * 704 * 256, rest = 2.0 * 256 * 256 + 2.0 * 128 * 256;
    const double expected = ((4 + 20.0 / 256) * (rest + big * 2 / 3) + (4 + 20.0 / 704) * big / 3) / (rest + big);
    QVERIFY(std::abs(weight_setup_bits(parse_weight_setup("rtn"), shape()) - expected) < 1e-12);
    QCOMPARE(shape().cached_elements_per_token(), std::int64_t(3 * 2 * 2 * 64));
  }

  void wholeNumbersAreTheBestOfAll_data() {
    QTest::addColumn<QString>("line");
    QTest::addColumn<QString>("key");
    QTest::addColumn<double>("target");
    QTest::addColumn<int>("last");
    QTest::newRow("width") << "kivi"
                           << "k_bits" << 3.9 << 8;
    QTest::newRow("group") << "kivi:residual_length=256"
                           << "group_size" << 4.2 << 256;
    QTest::newRow("residual, a multiple of the group") << "kivi"
                                                       << "residual_length" << 7.3 << 65536;
    QTest::newRow("residual, another group") << "kivi:group_size=64"
                                             << "residual_length" << 5.0 << 65536;
    QTest::newRow("window of any length") << "skvq:reorder=false,pre_rope=false,clip=1,group_size=64"
                                          << "window" << 4.321 << 65536;
  }
  void wholeNumbersAreTheBestOfAll() {
    QFETCH(QString, line);
    QFETCH(QString, key);
    QFETCH(double, target);
    QFETCH(int, last);
    const QByteArray setup = line.toLatin1(), name = key.toLatin1();
    const BitsSolution solution = solve_kv(setup, name, target);
    QVERIFY2(solution.reached(), solution.why_not().c_str());
    QVERIFY(std::abs(solution.best->bits - brute_force(setup, name, target, 0, last, true)) < 1e-9);
    // The line that is given back has these bits.
    QCOMPARE(kv_setup_bits(parse_kv_setup(solution.best->setup), shape()), solution.best->bits);
    QVERIFY(solution.above && solution.above->bits > target);
    QVERIFY(!solution.below || solution.below->bits < solution.best->bits);
  }

  void groupsOfWeightsAreDivisors() {
    const BitsSolution solution = solve_weights("rtn", "group_size", 4.35);
    QVERIFY(solution.reached());
    QVERIFY(std::abs(solution.best->bits - brute_force("rtn", "group_size", 4.35, -1, 704, false)) < 1e-9);
    QCOMPARE(weight_setup_bits(parse_weight_setup(solution.best->setup), shape()), solution.best->bits);
  }

  void realsComeCloseFromBelow() {
    const BitsSolution solution = solve_kv("kvquant:bits=3", "outliers", 3.9);
    QVERIFY2(solution.reached(), solution.why_not().c_str());
    QVERIFY(solution.best->bits <= 3.9 + 1e-9);
    QVERIFY2(solution.best->bits > 3.88, std::to_string(solution.best->bits).c_str());
  }

  void choicesAreTriedOneByOne() {
    const BitsSolution solution =
        solve_kv("skvq:reorder=false,pre_rope=false,clip=1,group_size=64,window=0,sink_tokens=0", "v_bits", 2.6);
    QVERIFY(solution.reached());
    QCOMPARE(std::get<std::string>(solution.best->value), std::string("2"));
    QCOMPARE(std::get<std::string>(solution.below->value), std::string("1.5"));
    QCOMPARE(std::get<std::string>(solution.above->value), std::string("3"));
  }

  void aParameterBehindAPlusSignIsFree() {
    // More of the prompt is held, so the tokens in full precision weigh less.
    const BitsSolution solution =
        solve_kv("kivi:group_size=16,residual_length=16+scope:prompt=64,recent=16", "scope.prompt", 6.0);
    QVERIFY2(solution.reached(), solution.why_not().c_str());
    const Setup found = *parse_kv_setup(solution.best->setup);
    QVERIFY(found.method == "kivi" && found.then.size() == 1);
    QCOMPARE(found.then.front().params.at("prompt"), solution.best->value);
    QVERIFY(solution.best->bits <= 6.0 && solution.above && solution.above->bits > 6.0);
  }

  void aTargetOutOfReachNamesTheRange() {
    const BitsSolution solution = solve_kv("kivi", "k_bits", 1.0);
    QVERIFY(!solution.reached());
    QVERIFY(solution.above && solution.above->bits == solution.least_bits);
    const QString why = QString::fromStdString(solution.why_not());
    QVERIFY2(why.contains(QString::fromStdString(bits_text(solution.least_bits))) &&
                 why.contains(QString::fromStdString(bits_text(solution.most_bits))),
             qPrintable(why));
    QVERIFY(QString::fromStdString(solve_kv("kivi", "compute", 1.0).why_not())
                .contains(QLatin1String("does not change the bits")));
  }

  void equalBitsLeaveTheSetupAsItIs() {
    const BitsSolution solution = solve_kv("kivi:compute=f16", "compute", 16.0);
    QCOMPARE(solution.best->setup, std::string("kivi:compute=f16"));
  }

  void wrongQuestionsAreRefused() {
    const QString unknown = refusal([] { solve_kv("kivi", "width", 3.0); });
    QVERIFY2(unknown.contains(QLatin1String("k_bits")) && unknown.contains(QLatin1String("width")),
             qPrintable(unknown));
    QVERIFY(refusal([] { solve_kv("layers:0=kivi;*=none", "k_bits", 3.0); }).contains(QLatin1String("layer")));
    QVERIFY(free_keys(*parse_kv_setup("layers:0=kivi;*=none"), kv_method_infos()).empty());
    QVERIFY(!refusal([] { solve_kv("kivi", "k_bits", 0.0); }).isEmpty());
    // A residual that no group divides leaves no value.
    BitsShape odd = shape();
    odd.spec.head_dim = 7;
    const QString none = refusal([&] { solve_kv_bits(*parse_kv_setup("kivi"), "k_bits", 3.0, odd); });
    QVERIFY2(none.contains(QLatin1String("No value of 'k_bits'")), qPrintable(none));
  }
};

QTEST_APPLESS_MAIN(TestSolveBits)
#include "tst_solve_bits.moc"
