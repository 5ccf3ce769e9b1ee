#include <QFile>
#include <QJsonArray>
#include <QTemporaryDir>
#include <QTest>
#include <cmath>

#include "tests/support/run_cli.h"

namespace {

const QString kSample = QStringLiteral("sample:sample-outliers-hf");
const QString kText = QStringLiteral("sample:texts/sample-valid.txt");

QStringList eval(const QString& weights, const QStringList& more = {}) {
  return QStringList{"eval",
                     kSample,
                     "--weights",
                     weights,
                     "--calibration",
                     kText,
                     "--calibration-tokens",
                     "512",
                     "--text",
                     kText,
                     "--window",
                     "64",
                     "--windows",
                     "1",
                     "--task",
                     "ppl",
                     "--threads",
                     "2",
                     "--json"} +
         more;
}

QString weights_of(const CliResult& result) { return result.json()["variant"].toObject()["weights"].toString(); }

double bits_of(const CliResult& result) { return result.json()["effective_bits"].toObject()["weights"].toDouble(); }

QByteArray content(const QString& path) {
  QFile file(path);
  return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
}

}  // namespace

/// Chains, per-layer setups and layer tables from the command line.
class TestCliWeights : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void chainsAndLayersAreEvaluated_data() {
    QTest::addColumn<QString>("line");
    QTest::addColumn<QString>("label");
    QTest::addColumn<double>("least");
    QTest::addColumn<double>("most");
    QTest::newRow("chain") << "smoothquant:alpha=0.55+gptq:bits=4,nsamples=2,seqlen=64"
                           << "smoothquant:alpha=0.55+gptq:nsamples=2,seqlen=64" << 4.0 << 4.5;
    QTest::newRow("layers") << "layers:0-1=gptq:bits=4,nsamples=2,seqlen=64;*=rtn:bits=3"
                            << "layers:0-1=gptq:nsamples=2,seqlen=64;*=rtn:bits=3" << 3.0 << 4.0;
    QTest::newRow("alpha per layer") << "layers:0=smoothquant:alpha=0.3;*=smoothquant:alpha=0.7"
                                     << "layers:0=smoothquant:alpha=0.3;*=smoothquant:alpha=0.7" << 8.0 << 8.5;
    QTest::newRow("alpha searched") << "smoothquant:alpha_rule=search"
                                    << "smoothquant:alpha_rule=search" << 8.0 << 8.5;
  }
  void chainsAndLayersAreEvaluated() {
    QFETCH(QString, line);
    QFETCH(QString, label);
    QFETCH(double, least);
    QFETCH(double, most);
    for (const char* execution : {"simulated", "packed"}) {
      const CliResult result = run_cli(eval(line, {"--execution", execution}));
      QVERIFY2(result.status == 0, result.error.constData());
      QCOMPARE(weights_of(result), label);
      QVERIFY2(bits_of(result) > least && bits_of(result) < most + 1.0, qPrintable(QString::number(bits_of(result))));
      const double perplexity = result.json()["tasks"].toArray()[0].toObject()["value"].toDouble();
      QVERIFY2(perplexity > 1.0 && perplexity < 1000.0, qPrintable(QString::number(perplexity)));
    }
  }

  void aPerLayerRunIsResumed() {
    QTemporaryDir folder;
    const QString line = "layers:0-1=gptq:bits=4,nsamples=2,seqlen=64;*=gptq:bits=3,nsamples=2,seqlen=64";
    const QStringList keeps = {"--checkpoint", folder.path() + "/run", "--layer-losses"};
    const CliResult first = run_cli(eval(line, keeps)), again = run_cli(eval(line, keeps));
    QVERIFY2(first.status == 0 && again.status == 0, first.error + again.error);
    QVERIFY(!first.error.contains("from the checkpoint"));
    QVERIFY(again.error.contains("layers.0.mlp.up_proj") && again.error.contains("from the checkpoint"));
    QCOMPARE(again.json()["tasks"].toArray()[0].toObject()["value"],
             first.json()["tasks"].toArray()[0].toObject()["value"]);
    const CliResult other = run_cli(
        eval("smoothquant+gptq:bits=4,nsamples=2,seqlen=64", {"--checkpoint", folder.path() + "/run/layers-0-1"}));
    QCOMPARE(other.status, 1);
    QVERIFY2(other.error.contains("made from something else") && other.error.contains("behind"),
             other.error.constData());
  }

  void missingCalibrationsAreUsageErrors() {
    const CliResult result =
        run_cli({"eval", kSample, "--weights", "layers:0=smoothquant+gptq;*=none", "--text", kText});
    QCOMPARE(result.status, 2);
    QVERIFY2(result.error.contains("--calibration"), result.error.constData());
    const CliResult wrong = run_cli(eval("smoothquant:bits_w=3+gptq"));
    QCOMPARE(wrong.status, 2);
    QVERIFY2(wrong.error.contains("bits_w=3 has no effect"), wrong.error.constData());
  }

  void layerStatisticsAreAWholeTable() {
    QTemporaryDir folder;
    const QString csv = folder.filePath("stats.csv");
    const QStringList arguments = {"layers", kSample, "--weights", "smoothquant", "--calibration", kText,
                                   "--text", kText,   "--window",  "64",          "--windows",     "2",
                                   "--csv",  csv,     "--threads", "2",           "--what",        "statistics"};
    const CliResult result = run_cli(arguments + QStringList{"--json"});
    QVERIFY2(result.status == 0, result.error.constData());
    const QJsonArray linears = result.json()["linears"].toArray();
    const qsizetype layers = run_cli({"inspect", kSample, "--json"}).json()["layers"].toInt();
    QCOMPARE(linears.size(), layers * 7);
    const QJsonObject last = linears.last().toObject();
    QCOMPARE(last["linear"].toString(), QString("down_proj"));
    QCOMPARE(last["values"].toObject().size(), 16);
    QVERIFY(last["values"].toObject()["sqnr_o"].toDouble() > 10.0);
    QCOMPARE(last["exact_windows"].toObject()["sqnr_w"].toInt(), 0);
    const QList<QByteArray> lines = content(csv).split('\n');
    QVERIFY(lines[0].startsWith("layer,kurt_w,kurt_x,max_w"));
    QCOMPARE(lines.size(), linears.size() + 2);
    const CliResult shown = run_cli(arguments);
    QVERIFY2(shown.out.contains("Local error") && shown.out.contains("layers.0.mlp.down_proj"), shown.out.constData());
  }

  void layerDistanceEndsAtTheHead() {
    QTemporaryDir folder;
    const QString csv = folder.filePath("distance.csv");
    const CliResult result = run_cli({"layers", kSample, "--weights", "rtn:bits=4", "--kv", "kivi:residual_length=32",
                                      "--text", kText, "--window", "96", "--what", "distance", "--csv", csv, "--json"});
    QVERIFY2(result.status == 0, result.error.constData());
    const QJsonArray linears = result.json()["linears"].toArray();
    QCOMPARE(linears.last().toObject()["linear"].toString(), QString("lm_head"));
    QVERIFY(linears.first().toObject()["sqnr_db"].isNull());
    QCOMPARE(linears.first().toObject()["exact_windows"].toInt(), 1);
    QVERIFY(linears.last().toObject()["sqnr_db"].toDouble() < 60.0);
    QVERIFY(content(csv).startsWith("layer,mse,sqnr\n"));
  }

  void layerModeOfTheSweepSuggestsASetup() {
    const CliResult result = run_cli({"alpha-sweep", kSample, "--text", kText, "--mode", "layer", "--alphas",
                                      "0.3:0.7:0.1", "--calibration-tokens", "512", "--json"});
    QVERIFY2(result.status == 0, result.error.constData());
    const QJsonObject scheme = result.json()["schemes"].toArray()[0].toObject();
    QVERIFY(scheme["least_layer_error"].toString().startsWith("layers:0"));
    QCOMPARE(scheme["points"].toArray().size(), 5);
    const CliResult used = run_cli(eval(scheme["least_layer_error"].toString()));
    QVERIFY2(used.status == 0, used.error.constData());
  }
};

QTEST_GUILESS_MAIN(TestCliWeights)
#include "tst_cli_weights.moc"
