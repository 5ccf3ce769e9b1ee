#include <QAbstractItemModelTester>
#include <QSignalSpy>
#include <QTest>

#include "widgets/models/dataset_tree_model.h"
#include "widgets/models/jobs_model.h"
#include "widgets/models/log_model.h"
#include "widgets/models/method_model.h"
#include "widgets/models/plain_table_model.h"
#include "widgets/models/results_model.h"

using namespace qs;

namespace {

constexpr auto kMode = QAbstractItemModelTester::FailureReportingMode::QtTest;

EvalReport report(const std::string& kv, double value, std::vector<double> items, const std::string& fingerprint = "f1",
                  std::int64_t window = 512) {
  EvalReport r;
  r.variant = {"sample", "", kv};
  r.protocol.window = window;
  r.protocol.windows = static_cast<std::int64_t>(items.size());
  r.tasks = {{"kl", "kl_divergence_nats", value, 0.01, static_cast<std::int64_t>(items.size()), 0.0, items}};
  r.fingerprint = fingerprint;
  r.kv_bits = kv.empty() ? 16.0 : 2.5;
  return r;
}

}  // namespace

class ModelsTest : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void plainTableShowsNumbersShortAndKeepsThemWhole() {
    PlainTableModel model;
    QAbstractItemModelTester tester(&model, kMode);
    model.setTable({"a", "b"}, {{1.0 / 3.0, "x"}, {2.0}});
    QCOMPARE(model.index(0, 0).data().toString(), QString("0.333333"));
    QCOMPARE(model.index(0, 0).data(Qt::EditRole).toDouble(), 1.0 / 3.0);
    QVERIFY(!model.index(1, 1).data().isValid());
    model.appendRow({3.0, "y", "too much"});
    QCOMPARE(model.rowCount(), 3);
    model.clear();
    QCOMPARE(model.columnCount(), 0);
  }

  void jobsAreUpdatedInPlaceAndNewestFirst() {
    JobsModel model;
    QAbstractItemModelTester tester(&model, kMode);
    model.update({1, "Capture", "", JobRow::State::Running, 0.25});
    model.update({2, "Sweep", "alpha"});
    QCOMPARE(model.at(0).id, quint64{2});
    QSignalSpy changed(&model, &QAbstractItemModel::dataChanged);
    model.update({1, "Capture", "", JobRow::State::Failed, 0.5, "", 0, -1, "The disk is full."});
    QCOMPARE(changed.count(), 1);
    QCOMPARE(model.index(1, JobsModel::Step).data().toString(), QString("The disk is full."));
    model.clearEnded();
    QCOMPARE(model.rowCount(), 1);
  }

  void durationsReadWell() {
    QCOMPARE(durationText(400), QString("0.4 s"));
    QCOMPARE(durationText(760000), QString("12:40"));
    QCOMPARE(durationText(3723000), QString("1:02:03"));
  }

  void logForgetsTheOldestLines() {
    LogModel model;
    for (int i = 0; i < LogModel::kLimit + 4; ++i) model.append(LogLine::Level::Info, QString::number(i));
    QAbstractItemModelTester tester(&model, kMode);
    model.append(LogLine::Level::Info, QStringLiteral("last"));
    QCOMPARE(model.rowCount(), LogModel::kLimit);
    QCOMPARE(model.index(0, LogModel::Text).data().toString(), QString("5"));
  }

  void methodsThatCannotRunAreDisabledAndSayWhy() {
    MethodModel model;
    QAbstractItemModelTester tester(&model, kMode);
    MethodInfo here{.id = "rtn", .title = "RTN"}, absent{.id = "x", .title = "X"};
    absent.runs_here = false;
    absent.why_not = "Needs CUDA.";
    model.setMethods({here, absent});
    QVERIFY(model.flags(model.index(0, 0)) & Qt::ItemIsEnabled);
    QVERIFY(!(model.flags(model.index(1, 0)) & Qt::ItemIsEnabled));
    QVERIFY(model.index(1, 0).data(Qt::ToolTipRole).toString().contains("Needs CUDA."));
  }

  void datasetsFormATreeWithSums() {
    DatasetTreeModel model;
    QAbstractItemModelTester tester(&model, kMode);
    CaptureInfo info;
    info.datasets = {{"/layers/000/key", "float16", {2, 10, 4}, "kv_heads,tokens,head_dim", 100},
                     {"/layers/000/value", "float16", {2, 10, 4}, "kv_heads,tokens,head_dim", 60},
                     {"/tokens/ids", "int32", {10}, "tokens", 40}};
    model.setCapture(info);
    QCOMPARE(model.rowCount(), 2);
    const QModelIndex key = model.indexOfPath("/layers/000/key");
    QVERIFY(key.isValid());
    QCOMPARE(key.siblingAtColumn(DatasetTreeModel::Shape).data().toString(), QString("2 × 10 × 4"));
    QCOMPARE(model.indexOfPath("/layers").data(DatasetTreeModel::BytesRole).toLongLong(), 160LL);
    QVERIFY(!model.indexOfPath("/nothing").isValid());
    QCOMPARE(bytesText(640), QString("640 B"));
    QCOMPARE(bytesText(13 * 1024 * 1024), QString("13.0 MiB"));
  }

  void differencesArePairedWithTheFullPrecisionRow() {
    ResultsModel model;
    QAbstractItemModelTester tester(&model, kMode);
    model.setReports({report("kivi", 0.2, {0.1, 0.3}), report("", 0.0, {0.0, 0.0})});
    QCOMPARE(model.baseline(), 1);
    const auto difference = model.difference(0, "kl");
    QVERIFY(difference.has_value());
    QCOMPARE(difference->mean, 0.2);
    QCOMPARE(model.index(1, model.metricColumn(0) + 1).data().toString(), QString("baseline"));
  }

  void otherProtocolsAreNeverDifferencedSilently() {
    ResultsModel model;
    QAbstractItemModelTester tester(&model, kMode);
    model.setReports({report("", 0.0, {0.0, 0.0}), report("kivi", 0.2, {0.1, 0.3}, "f2", 1024)});
    const QModelIndex cell = model.index(1, model.metricColumn(0) + 1);
    QVERIFY(!model.difference(1, "kl"));
    QVERIFY(cell.data(ResultsModel::WarningRole).toBool());
    QVERIFY(cell.data().toString().contains("not comparable"));
    QVERIFY2(cell.data(Qt::ToolTipRole).toString().contains("window"),
             qPrintable(cell.data(Qt::ToolTipRole).toString()));
    model.setMixedProtocolsShown(true);
    QVERIFY(cell.data().toString().startsWith(QStringLiteral("⚠")));
    QVERIFY(!model.difference(1, "kl"));
  }
};

QTEST_GUILESS_MAIN(ModelsTest)
#include "tst_models.moc"
