#include <QJsonArray>
#include <QtTest>

#include "tests/support/run_cli.h"

namespace {

const QString kModel = QStringLiteral("sample:sample-hf");

QJsonObject first_method(const QByteArray& out) { return QJsonDocument::fromJson(out).array().at(0).toObject(); }

}  // namespace

/// Plans on the command line: bits solved for a parameter, budgets, published numbers.
class TestCliPlans : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void solveGivesALineWithThoseBits() {
    const CliResult result = run_cli({"solve", "kivi:residual_length=256", "--bits", "3.5", "--free", "group_size",
                                      "--model", kModel, "--tokens", "2048", "--json"});
    QVERIFY2(result.status == 0, result.error);
    const QJsonObject best = result.json()["best"].toObject();
    QCOMPARE(best["value"].toInt(), 64);
    QCOMPARE(best["setup"].toString(), QStringLiteral("kivi:group_size=64,residual_length=256"));
    QVERIFY(best["bits"].toDouble() <= 3.5 && result.json()["above"]["bits"].toDouble() > 3.5);
    const CliResult text =
        run_cli({"solve", "rtn", "--side", "weights", "--bits", "4.5", "--free", "group_size", "--model", kModel});
    QVERIFY2(text.status == 0, text.error);
    QVERIFY2(text.out.contains("solution") && text.out.contains("rtn:group_size="), text.out);
  }

  void aTargetOutOfReachEndsWithOne() {
    const CliResult result = run_cli({"solve", "kivi", "--bits", "1", "--free", "k_bits", "--model", kModel, "--json"});
    QCOMPARE(result.status, 1);
    QVERIFY(!result.json()["reached"].toBool(true));
    QVERIFY(result.json()["why_not"].toString().contains(QStringLiteral("cannot be reached")));
    QCOMPARE(run_cli({"solve", "kivi", "--bits", "3", "--free", "colour", "--model", kModel}).status, 1);
    QCOMPARE(run_cli({"solve", "none", "--bits", "3", "--free", "bits", "--model", kModel}).status, 2);
  }

  void aMethodsPageHasItsPublishedNumbers() {
    const CliResult json = run_cli({"methods", "kivi", "--json"});
    QVERIFY2(json.status == 0, json.error);
    const QJsonArray published = first_method(json.out)["published"].toArray();
    QVERIFY(published.size() > 20);
    QCOMPARE(published.at(0)["setup"].toString(), QStringLiteral("kivi"));
    QCOMPARE(published.at(0)["data"].toString(), QStringLiteral("WikiText-2"));
    QCOMPARE(published.at(0)["value"].toDouble(), 8.83);
    QCOMPARE(published.at(0)["full_precision"].toDouble(), 7.24);
    const CliResult page = run_cli({"methods", "skvq"});
    QVERIFY2(page.out.contains("Published, measured elsewhere") && page.out.contains("272.2 (2)"), page.out);
    // The list of all methods stays short.
    QVERIFY(!first_method(run_cli({"methods", "--json"}).out).contains(QStringLiteral("published")));
  }

  void autoTakesBytesAToken() {
    const QTemporaryDir dir;
    const QStringList arguments = {"auto",
                                   kModel,
                                   "--text",
                                   "sample:texts/sample-valid.txt",
                                   "--window",
                                   "64",
                                   "--windows",
                                   "1",
                                   "--tokens",
                                   "2048",
                                   "--cache",
                                   dir.path(),
                                   "--candidates",
                                   "kivi:g=16,r=16;kivi:bits=8,g=16,r=16",
                                   "--bytes-per-token",
                                   "1344",
                                   "--json"};
    const CliResult first = run_cli(arguments);
    QVERIFY2(first.status == 0, first.error);
    QCOMPARE(first.json()["budget_bits"].toDouble(), 7.0);
    QVERIFY(first.json()["bytes_per_token"].toDouble() <= 1344.0 + 1.0);
    QCOMPARE(first.json()["remembered"].toInt(), 0);
    const CliResult second = run_cli(arguments);
    QCOMPARE(second.json()["measured"].toInt(), 0);
    QCOMPARE(second.json()["setup"], first.json()["setup"]);
    QCOMPARE(run_cli(arguments + QStringList{"--budget-bits", "7"}).status, 2);
  }
};

QTEST_GUILESS_MAIN(TestCliPlans)
#include "tst_cli_plans.moc"
