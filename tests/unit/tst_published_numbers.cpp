#include <QtTest>
#include <fstream>
#include <set>

#include "backend/evaluation/published_numbers.h"
#include "backend/method_registry.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

const std::vector<PublishedNumber>& shipped() {
  static const std::vector<PublishedNumber> numbers = read_published_numbers(QS_RESOURCES "/published");
  return numbers;
}

std::vector<PublishedNumber> matching(const std::string& method, const std::string& label, const std::string& model,
                                      const std::string& data) {
  std::vector<PublishedNumber> found;
  for (const PublishedNumber& n : shipped()) {
    if (n.method == method && n.label == label && n.model == model && n.data == data) found.push_back(n);
  }
  return found;
}

MethodInfo info_of(const std::string& id, bool kv) {
  for (const MethodInfo& info : kv ? kv_method_infos() : weight_method_infos()) {
    if (info.id == id) return info;
  }
  return {};
}

/// Reads one file made of `tables`.
std::vector<PublishedNumber> read_tables(const std::string& tables, const std::string& head = R"("version": 1)") {
  const QTemporaryDir folder;
  const std::string file = folder.filePath(QStringLiteral("numbers.json")).toStdString();
  std::ofstream(file) << R"({"format": "quantoscope-published", "side": "kv", )" << head << R"(, "tables": [)" << tables
                      << "]}";
  return read_published_numbers(folder.path().toStdString());
}

QString refusal_of(const std::string& tables, const std::string& head = R"("version": 1)") {
  try {
    read_tables(tables, head);
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
  return {};
}

}  // namespace

class TestPublishedNumbers : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void everyTableOfTheSourcesIsThere() {
    std::map<std::pair<std::string, bool>, int> counts;
    for (const PublishedNumber& number : shipped()) ++counts[{number.method, number.kv}];
    QCOMPARE(shipped().size(), std::size_t(244 + 211));
    QCOMPARE((counts[{"decoquant", true}]), 15 + 4);
    QCOMPARE((counts[{"scope", true}]), 2 * 8 * 4 + 4);
    QCOMPARE((counts[{"kvquant", true}]), 3 * 7 + 66 + 2 + 1 + 1 + 5 + 6);
    QCOMPARE((counts[{"qaq", true}]), 3);
    QCOMPARE((counts[{"spqr", false}]), 4 + 6 + 3);
  }

  void valuesAreThoseOfTheTables() {
    const auto kivi = matching("kivi", "KIVI-2", "Llama-3.1-8B-Instruct", "C4");
    QCOMPARE(kivi.size(), std::size_t(1));
    QCOMPARE(kivi[0].value, 12.40);
    QCOMPARE(*kivi[0].baseline, 10.34);
    const auto bits = matching("kvquant", "nuq3-1%", "all ten models", "");
    QCOMPARE(bits.size(), std::size_t(1));
    QCOMPARE(QString::fromStdString(value_text(bits[0])), QStringLiteral("3.32 – 3.35 bits"));
    const auto slide = matching("scope", "slide, 1024", "Llama-3.1-8B-Instruct", "MMLU+");
    QCOMPARE(slide.size(), std::size_t(1));
    QCOMPARE(slide[0].value, 49.62);
    QVERIFY(slide[0].note.find("46.62") != std::string::npos);
    const auto spqr = matching("spqr", "SpQR 3.99 bits", "LLaMA-3.1-8B-Instruct", "C4");
    QCOMPARE(spqr.size(), std::size_t(1));
    QCOMPARE(spqr[0].value, 11.11);
    QCOMPARE(*spqr[0].baseline, 10.41);
    const auto lut = matching("bcq", "LUT-GEMM w3", "", "12288 × 49152");
    QCOMPARE(lut.size(), std::size_t(1));
    QCOMPARE(lut[0].value, 0.2939);
    QCOMPARE(*lut[0].baseline, 0.7594);
  }

  void uncheckedNumbersAreMarked() {
    const auto needle = matching("skvq", "SKVQ K2 V1.5", "Llama-2-7B-80K", "needle test, 32 K");
    QCOMPARE(needle.size(), std::size_t(1));
    QVERIFY(needle[0].secondary);
    QVERIFY(!matching("kivi", "KIVI-2", "LongChat-7B-v1.5-32K", "LongBench, 15 tasks").at(0).secondary);
    QCOMPARE(std::count_if(shipped().begin(), shipped().end(), [](const auto& n) { return n.secondary; }), 15);
  }

  void everyMethodExistsAndEverySetupIsRead() {
    for (const PublishedNumber& number : shipped()) {
      const std::string place = number.method + ", " + number.label;
      QVERIFY2(!info_of(number.method, number.kv).id.empty(), place.c_str());
      QVERIFY2(!number.source.empty() && !number.metric.empty(), place.c_str());
      if (number.setup.empty()) continue;
      const auto setup = number.kv ? parse_kv_setup(number.setup) : parse_weight_setup(number.setup);
      QVERIFY2(setup && setup->method == number.method, number.setup.c_str());
    }
  }

  void theNearestSetupComesFirst() {
    const MethodInfo kivi = info_of("kivi", true);
    const auto four = nearest_published(shipped(), kivi, "kivi:k_bits=4,v_bits=4,residual_length=64");
    QCOMPARE(four.front().label, std::string("KIVI-4"));
    const auto two = nearest_published(shipped(), kivi, "kivi");
    QCOMPARE(two.front().setup, std::string("kivi"));
    QVERIFY(two.back().setup.empty());
    QCOMPARE(two.size(), four.size());
    for (const PublishedNumber& number : two) QCOMPARE(number.method, std::string("kivi"));
    // "rtn" is the name of two methods: each side has its own numbers.
    for (const PublishedNumber& number : nearest_published(shipped(), info_of("rtn", false), "rtn"))
      QVERIFY(!number.kv);
  }

  void theMostSpecificFieldHolds() {
    const auto numbers = read_tables(R"({"method": "kivi", "source": "s", "metric": "perplexity", "unit": "a",
      "columns": [{"unit": "b", "baseline": 1}, {"unit": "b", "baseline": 1}, {"label": "column"}],
      "rows": [{"label": "row", "values": [{"value": 2, "unit": "c", "baseline": null}, 3, null]}]})");
    QCOMPARE(numbers.size(), std::size_t(2));
    QCOMPARE(numbers[0].unit, std::string("c"));
    QVERIFY(!numbers[0].baseline);
    QCOMPARE(numbers[1].unit, std::string("b"));
    QCOMPARE(*numbers[1].baseline, 1.0);
    QCOMPARE(numbers[1].value, 3.0);
  }

  void faultsAreNamed_data() {
    QTest::addColumn<QString>("tables");
    QTest::addColumn<QString>("named");
    const auto row = [](const char* name, const char* tables, const char* named) {
      QTest::newRow(name) << QString::fromUtf8(tables) << QString::fromUtf8(named);
    };
    row("unknown field", R"({"rows": [{"colour": "red", "value": 1}]})", "row 1: expected no field 'colour'");
    row("missing source", R"({"rows": [{"method": "kivi", "label": "l", "metric": "m", "value": 1}]})", "a 'source'");
    row("missing value", R"({"rows": [{"method": "kivi"}]})", "1 values, found 0");
    row("short row", R"({"columns": [{}, {}], "rows": [{"values": [1]}]})", "2 values, found 1");
    row("text for a number", R"({"rows": [{"value": "high"}]})", "a number, null or an object");
    row("reversed range", R"({"method": "m", "label": "l", "metric": "m", "source": "s", "columns": [{}],
      "rows": [{"values": [{"value": 2, "to": 1}]}]})",
        "'to' above 'value'");
    row("no rows", R"({"source": "s"})", "table 1: expected a list 'rows'");
    row("not a table", "3", "an object");
  }
  void faultsAreNamed() {
    QFETCH(QString, tables);
    QFETCH(QString, named);
    const QString refusal = refusal_of(tables.toStdString());
    QVERIFY2(refusal.contains(QStringLiteral("numbers.json")), qPrintable(refusal));
    QVERIFY2(refusal.contains(named), qPrintable(refusal));
  }

  void otherFilesAreRefused() {
    QVERIFY(refusal_of("", R"("version": 2)").contains(QStringLiteral("\"version\": 1")));
    QVERIFY_EXCEPTION_THROWN(read_published_numbers("/no/such/folder"), Error);
  }
};

QTEST_APPLESS_MAIN(TestPublishedNumbers)
#include "tst_published_numbers.moc"
