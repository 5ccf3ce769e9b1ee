#include <QTest>

#include "backend/evaluation/golden_evaluation.h"
#include "backend/methods/golden.h"

using namespace qs;

/// A part of the golden cases of weight methods and evaluation rules; the manifest states the origin of each.
class TestWeightsGolden : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void everyCaseHoldsUnderItsRule() {
    const VerifyReport report =
        verify_golden(QS_TEST_DATA "/golden/weights", JobContext(), golden_evaluation_runners());
    for (const VerifyFailure& failure : report.failed) {
      qWarning("%s %s: %s, worst %g", failure.case_name.c_str(), failure.tensor.c_str(), failure.rule.c_str(),
               failure.worst);
    }
    QVERIFY(report.failed.empty());
    QCOMPARE(report.cases, std::int64_t{64});
    QVERIFY(report.skipped.empty());
    QCOMPARE(report.passed, report.cases);
  }
};

QTEST_GUILESS_MAIN(TestWeightsGolden)
#include "tst_weights_golden.moc"
