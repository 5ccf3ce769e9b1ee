#include <QtTest>
#include <random>

#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/methods/skvq_string.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

std::string message_of(const std::string& text) {
  try {
    parse_kv_setup(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "(accepted)";
}

std::string canonical(const std::string& text) { return format_setup(parse_kv_setup(text).value(), kv_method_infos()); }

}  // namespace

class TestSetup : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void noneAndEmptyAreNoSetup() {
    QVERIFY(!parse_kv_setup("none"));
    QVERIFY(!parse_kv_setup(""));
    QVERIFY(!parse_weight_setup("none"));
  }

  void everySpellingNamesTheSameSetup_data() {
    QTest::addColumn<QString>("spelling");
    QTest::addColumn<QString>("expected");
    QTest::newRow("defaults") << "kivi"
                              << "kivi";
    QTest::newRow("short keys") << "kivi:k=2,v=2,g=32,r=128"
                                << "kivi";
    QTest::newRow("both widths") << "kivi:bits=4"
                                 << "kivi:k_bits=4,v_bits=4";
    QTest::newRow("widths apart") << "kivi:k=4,v=2"
                                  << "kivi:k_bits=4";
    QTest::newRow("SKVQ's KIVI") << "k2-v2-w128-g128-KIVI"
                                 << "kivi:group_size=128";
    QTest::newRow("any order and case") << "K2-V4-KIVI-G64-W256"
                                        << "kivi:v_bits=4,group_size=64,residual_length=256";
    QTest::newRow("SKVQ's example") << "k2-v2-w128-g128-reorder-pre_rope-clip-sink5-fp8"
                                    << "skvq:store=e4m3";
    QTest::newRow("1.5 bits") << "k2-v1.5-g64-w128-reorder-pre_rope-clip0.96-sink5"
                              << "skvq:v_bits=1.5,group_size=64,clip=0.96";
    QTest::newRow("SKVQ's rtn") << "k2-v2-g128-rtn"
                                << "skvq:window=0,sink_tokens=0,reorder=false,pre_rope=false,clip=1";
    QTest::newRow("SKVQ's rptq") << "k3-v3-rptq-clipsearch"
                                 << "skvq:k_bits=3,v_bits=3,window=0,sink_tokens=0,clip_rule=search";
    QTest::newRow("SKVQ's smoothquant") << "k4-v4-smoothquant-fp8e5m2"
                                        << "skvq:k_bits=4,v_bits=4,window=0,sink_tokens=0,reorder=false,clip=1,"
                                           "smooth=true,store=e5m2";
    QTest::newRow("SKVQ's h2o") << "k2-v2-h2o0.5"
                                << "skvq:sink_tokens=0,reorder=false,pre_rope=false,clip=1,keep=h2o,"
                                   "quantized_share=0.5";
    QTest::newRow("rod and a typing error") << "k16-v2-reoder-rod"
                                            << "skvq:k_bits=16,sink_tokens=0,pre_rope=false,clip=1";
    QTest::newRow("short forms") << "skvq:bits=4,clip=search,fp8"
                                 << "skvq:k_bits=4,v_bits=4,clip_rule=search,store=e4m3";
    QTest::newRow("token") << "rtn-token-asym:bits=4,g=128"
                           << "rtn";
    QTest::newRow("channel") << "rtn-channel-asym:bits=2,g=32"
                             << "rtn:scheme=channel_asym,bits=2,group_size=32";
    QTest::newRow("symmetric") << "rtn-token-sym"
                               << "rtn:scheme=token_sym";
  }
  void everySpellingNamesTheSameSetup() {
    QFETCH(QString, spelling);
    QFETCH(QString, expected);
    QCOMPARE(QString::fromStdString(canonical(spelling.toStdString())), expected);
    QCOMPARE(QString::fromStdString(canonical(expected.toStdString())), expected);
  }

  void skvqStringsArePrintedInTheirOrder() {
    for (const auto& [text, printed] :
         {std::pair{"none-of-it", ""},
          std::pair{"k2-v2-w128-g128-reorder-pre_rope-clip-sink5-fp8",
                    "k2-v2-g128-w128-reorder-clip0.92-pre_rope-sink5-fp8"},
          std::pair{"k2-v2-g128-w128-KIVI", "k2-v2-g128-w128-KIVI"},
          std::pair{"k2-v1.5-g64-w128-reorder-pre_rope-clip0.96-sink5",
                    "k2-v1.5-g64-w128-reorder-clip0.96-pre_rope-sink5"},
          std::pair{"k2-v2-g128-rtn", "k2-v2-g128-w0"}, std::pair{"K4-V4-Smooth-ClipSearch-RTN", ""},
          std::pair{"k4-v4-smooth-clipsearch", "k4-v4-g128-w128-smooth-clipsearch"},
          std::pair{"k2-v2-random0.25-fp8e5m2", "k2-v2-g128-w128-fp8e5m2-random0.25"},
          std::pair{"skvq:clip_mode=centre", ""}, std::pair{"kivi:store=f32", ""}}) {
      std::optional<Setup> setup;
      try {
        setup = parse_kv_setup(text);
      } catch (const Error&) {
        QCOMPARE(std::string(printed), std::string());
        continue;
      }
      const std::string first = skvq_string(*setup);
      QCOMPARE(first, std::string(printed));
      if (!first.empty()) QVERIFY(parse_kv_setup(first) == setup && skvq_string(*parse_kv_setup(first)) == first);
    }
    std::vector<std::string> warnings;
    parse_kv_setup("k2-v2-g128-w128-reorder", &warnings);
    QVERIFY(warnings.empty());
    parse_kv_setup("k2-v2-g128-w128-reoder", &warnings);
    QCOMPARE(warnings.size(), std::size_t{1});
  }

  void wrongSetupsSayWhatIsWrong_data() {
    QTest::addColumn<QString>("text");
    QTest::addColumn<QString>("expected");
    QTest::newRow("unknown method") << "kivy"
                                    << "kivi";
    QTest::newRow("unknown key") << "kivi:width=2"
                                 << "width";
    QTest::newRow("no number") << "kivi:k_bits=two"
                               << "2 to 8";
    QTest::newRow("out of range") << "kivi:group_size=1000"
                                  << "16 to 256";
    QTest::newRow("no such width") << "kivi:bits=5"
                                   << "the nearest is 4";
    QTest::newRow("residual") << "kivi:residual_length=100"
                              << "the nearest is 96";
    QTest::newRow("twice") << "kivi:k=2,k_bits=2"
                           << "twice";
    QTest::newRow("1 bit symmetric") << "rtn:scheme=token_sym,bits=1"
                                     << "found 1";
    QTest::newRow("unknown scheme") << "rtn:scheme=row"
                                    << "token_asym";
    QTest::newRow("SKVQ's width") << "k2-v5-g128"
                                  << "found 'v5'";
    QTest::newRow("twice in a string") << "k2-v2-g64-g128"
                                       << "twice";
    QTest::newRow("sink") << "k2-v2-sink"
                          << "needs a number";
    QTest::newRow("clip") << "k2-v2-clip0.3"
                          << "0.5";
    QTest::newRow("smooth in smoothquant") << "k2-v2-smoothquantx"
                                           << "'smoothquantx' is no option";
    QTest::newRow("rtn with a window") << "k2-v2-w128-rtn"
                                       << "no window";
    QTest::newRow("h2o before rotation") << "k2-v2-pre_rope-h2o0.5"
                                         << "after rotation";
    QTest::newRow("sink in KIVI") << "k2-v2-g128-w128-KIVI-sink5"
                                  << "no sinks";
    QTest::newRow("pre_rope in KIVI") << "k2-v2-g128-w128-KIVI-pre_rope"
                                      << "pre_rope";
    QTest::newRow("keep before rotation") << "skvq:keep=random"
                                          << "pre_rope=false";
    QTest::newRow("skvq's width") << "skvq:k=5"
                                  << "1.5, 2, 3";
    QTest::newRow("unknown option") << "k2-v2-g128-w128-KIVI-fast"
                                    << "'fast' is no option";
    QTest::newRow("trailing text") << "k2-v2-g128x-KIVI"
                                   << "g128x";
    QTest::newRow("clash") << "k2-v2-g128-w128-KIVI-reorder"
                           << "reorder";
    QTest::newRow("window") << "k2-v2-g128-w100-KIVI"
                            << "multiple of the group";
    QTest::newRow("selection") << "kivi:k=2+scope:slide"
                               << "the nearest is 256";
  }
  void wrongSetupsSayWhatIsWrong() {
    QFETCH(QString, text);
    QFETCH(QString, expected);
    const QString message = QString::fromStdString(message_of(text.toStdString()));
    QVERIFY2(message.contains(expected), qPrintable(message));
  }

  void widthRangesAndShortNamesOfTheMixedMethods() {
    QCOMPARE(canonical("qaq:level=head,outliers=0.01,err=3,last_n=5,bits=1..4"), std::string("qaq"));
    QCOMPARE(canonical("qaq:bits=0..2,q_norm=200"), std::string("qaq:n_bits_min=0,n_bits_max=2,query_energy=200"));
    QCOMPARE(canonical("qaq:bits=3"), std::string("qaq:n_bits_uniform=3,use_attentions=false"));
    QVERIFY(message_of("qaq:bits=4..2").find("n_bits_min") != std::string::npos);
    QVERIFY(message_of("qaq:bits=1..x").find("n_bits_max") != std::string::npos);
    QCOMPARE(canonical("deco:bits=4,n2=16,flush=1024"), std::string("decoquant"));
    QCOMPARE(canonical("deco:bits=2,flush=256"), std::string("decoquant:bits=2,flush_len=256"));
    QCOMPARE(canonical("deco"), std::string("decoquant"));
  }

  void formattedSetupsParseToThemselves() {
    std::mt19937_64 generator(7);
    for (int round = 0; round < 200; ++round) {
      const MethodInfo info = kv_method_infos()[generator() % kv_method_infos().size()];
      Setup setup{.method = info.id, .params = with_fallbacks(info.params, {})};
      for (const ParamSpec& spec : info.params) {
        if (const auto* range = std::get_if<IntRange>(&spec.domain)) {
          setup.params[spec.key] =
              range->min + static_cast<int>(generator() % static_cast<unsigned>(range->max - range->min + 1));
        } else if (const auto* choices = std::get_if<Choices>(&spec.domain)) {
          setup.params[spec.key] = choices->values[generator() % choices->values.size()];
        }
      }
      QVERIFY(parse_setup(format_setup(setup, kv_method_infos()), kv_method_infos()) == setup);
    }
  }

  void everyDeclarationIsCompleteAndItsPresetsFit() {
    for (const MethodInfo& info : all_methods()) {
      QVERIFY2(!info.title.empty() && !info.summary.empty() && !info.effective_bits_formula.empty(), info.id.c_str());
      for (const ParamSpec& spec : info.params) QVERIFY2(!spec.label.empty() && !spec.help.empty(), spec.key.c_str());
      QVERIFY(check(info.params, with_fallbacks(info.params, {})).empty());
      for (const Preset& preset : info.presets) {
        QVERIFY2(check(info.params, preset.params).empty() && !preset.source.empty(), preset.label.c_str());
      }
    }
    for (const MethodInfo& info : kv_method_infos()) {
      for (const Preset& preset : info.presets) make_kv_method({info.id, with_fallbacks(info.params, preset.params)});
    }
  }

  void anUnknownMethodCannotBeMade() {
    QVERIFY_EXCEPTION_THROWN(make_kv_method({"unheard_of", {}}), Error);
    QVERIFY_EXCEPTION_THROWN(make_weight_method({"unheard_of", {}}), Error);
  }
};

QTEST_APPLESS_MAIN(TestSetup)
#include "tst_setup.moc"
