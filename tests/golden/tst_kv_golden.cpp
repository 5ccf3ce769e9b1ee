#include <ATen/ATen.h>

#include <QTemporaryDir>
#include <QtTest>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "backend/methods/golden.h"
#include "backend/types/error.h"

using namespace qs;

namespace {

GoldenComparison compare(const at::Tensor& actual, const at::Tensor& expected, const char* rule) {
  return compare_golden(actual, expected, nlohmann::json::parse(rule));
}

at::Tensor numbers(std::initializer_list<double> values) {
  return at::tensor(std::vector<double>(values), at::kDouble);
}

}  // namespace

class TestKvGolden : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void everyCaseOfThePresentMethodsPasses() {
    const VerifyReport report = verify_golden(std::string(QS_TEST_DATA) + "/golden/kv", {});
    for (const VerifyFailure& failure : report.failed) {
      qWarning("%s %s: %s, worst %g", failure.case_name.c_str(), failure.tensor.c_str(), failure.rule.c_str(),
               failure.worst);
    }
    QVERIFY(report.failed.empty());
    QVERIFY(report.skipped.empty());
    QCOMPARE(report.cases, std::int64_t{67});
    QCOMPARE(report.passed, report.cases);
  }

  void methodsThatAreNotHereAreListedAsSkipped() {
    const QTemporaryDir dir;
    std::ofstream(dir.filePath("manifest.json").toStdString())
        << R"({"description": "KV", "cases": [{"method": "unheard_of", "case": "one", "file": "none.safetensors"}]})";
    const VerifyReport report = verify_golden(dir.path().toStdString(), {});
    QCOMPARE(report.cases, std::int64_t{1});
    QCOMPARE(report.skipped.size(), std::size_t{1});
    QCOMPARE(report.skipped[0].case_name, std::string("unheard_of/one"));
    QVERIFY(report.skipped[0].why.find("not in this version") != std::string::npos);
  }

  void aMissingTensorFileIsAFailureOfItsCase() {
    const QTemporaryDir dir;
    std::ofstream(dir.filePath("manifest.json").toStdString())
        << R"({"description": "KV", "cases": [{"method": "kivi", "case": "one", "file": "none.safetensors",
              "tensors": [{"name": "key", "role": "input"}]}]})";
    const VerifyReport report = verify_golden(dir.path().toStdString(), {});
    QCOMPARE(report.passed, std::int64_t{0});
    QCOMPARE(report.failed.size(), std::size_t{1});
    QVERIFY(report.failed[0].rule.find("none.safetensors") != std::string::npos);
  }

  void aCaseThatComparesNothingIsNoPass() {
    const QTemporaryDir dir;
    std::ofstream(dir.filePath("manifest.json").toStdString())
        << R"({"cases": [{"method": "kivi", "case": "one", "tensors": []}]})";
    QCOMPARE(verify_golden(dir.path().toStdString(), {}).failed.size(), std::size_t{1});
  }

  void aWrongResultIsReportedWithItsWorstFigure() {
    const QTemporaryDir dir;
    std::ofstream(dir.filePath("manifest.json").toStdString())
        << R"({"description": "KV", "cases": [{"method": "kivi", "case": "f", "kind": "formula", "tolerance": 1e-12,
              "params": {"bits": 2, "group_size": 32}, "expected": {"quantized_element_bits": 2.0}}]})";
    const VerifyReport report = verify_golden(dir.path().toStdString(), {});
    QCOMPARE(report.failed.size(), std::size_t{1});
    QCOMPARE(report.failed[0].worst, 1.0);
  }

  void aFolderWithoutManifestIsRefused() {
    const QTemporaryDir dir;
    QVERIFY_EXCEPTION_THROWN(verify_golden(dir.path().toStdString(), {}), Error);
    for (const char* lie :
         {"{", "[]", R"({"cases": 3})", R"({"cases": [7]})", R"({"cases": [{"method": 1, "case": "a"}]})"}) {
      std::ofstream(dir.filePath("manifest.json").toStdString()) << lie;
      QVERIFY_EXCEPTION_THROWN(verify_golden(dir.path().toStdString(), {}), Error);
    }
  }

  void compareRulesMeanWhatTheManifestSays() {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    QVERIFY(compare(numbers({1, nan}), numbers({1, nan}), R"({"mode": "exact"})").passed);
    QVERIFY(!compare(numbers({1, nan}), numbers({1, 2}), R"({"mode": "exact"})").passed);
    QVERIFY(compare(numbers({1.5}), numbers({1}), R"({"mode": "abs", "tol": 0.5})").passed);
    QVERIFY(!compare(numbers({1.6}), numbers({1}), R"({"mode": "abs", "tol": 0.5})").passed);
    QVERIFY(compare(numbers({3, 4.4}), numbers({3, 4}), R"({"mode": "rel_fro", "tol": 0.1})").passed);
    QVERIFY(!compare(numbers({3, 4.6}), numbers({3, 4}), R"({"mode": "rel_fro", "tol": 0.1})").passed);
    QVERIFY(compare(numbers({1, 1, 1, 3}), numbers({1, 1, 1, 1}),
                    R"({"mode": "abs_frac", "tol": 0, "fraction": 0.75, "max": 2})")
                .passed);
    QVERIFY(!compare(numbers({1, 1, 1, 4}), numbers({1, 1, 1, 1}),
                     R"({"mode": "abs_frac", "tol": 0, "fraction": 0.75, "max": 2})")
                 .passed);
    QVERIFY(!compare(numbers({1, 1, 2, 2}), numbers({1, 1, 1, 1}),
                     R"({"mode": "abs_frac", "tol": 0, "fraction": 0.75, "max": 2})")
                 .passed);
    QVERIFY(compare(numbers({2, 1, -1}), numbers({1, 2, -1}), R"({"mode": "set"})").passed);
    QVERIFY(!compare(numbers({2, 1, 3}), numbers({1, 2, -1}), R"({"mode": "set"})").passed);
    QVERIFY(compare(numbers({1.05}), numbers({1}), R"({"mode": "le", "tol": 1.1})").passed);
    QVERIFY(!compare(numbers({1.2}), numbers({1}), R"({"mode": "le", "tol": 1.1})").passed);
    QVERIFY(!compare(numbers({1}), numbers({1, 1}), R"({"mode": "abs", "tol": 1})").passed);
    QVERIFY(!compare(numbers({1}), numbers({1}), R"({"mode": "unheard_of"})").passed);
  }
};

QTEST_APPLESS_MAIN(TestKvGolden)
#include "tst_kv_golden.moc"
