#include <QDir>
#include <QFile>
#include <QJsonArray>
#include <QTemporaryDir>
#include <QTest>

#include "tests/support/run_cli.h"

// Every verb on the bundled sample: exit status, field names that scripts rely on, and invariants of what is printed.
class TestCli : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void initTestCase();
  void methodsDeclareTheirParameters();
  void readmeTableIsCurrent();
  void inspectShowsTheModelCard();
  void captureStatsAndApplyAgree();
  void generateReproducesTheGoldenIds();
  void modelsWithoutATokenizerTakeIds_data();
  void modelsWithoutATokenizerTakeIds();
  void aChatIsWrittenInTheTemplateThatIsNamed();
  void tokenizeShowsPlaces();
  void sameSeedSameText();
  void evalGivesEveryTaskItsErrorAndProtocol();
  void alphaSweepReportsEveryPoint();
  void autoFindsAPerLayerLine();
  void verifyFindsNoFailure();
  void decodeBenchReportsRatios();
  void badUsageIsTwo_data();
  void badUsageIsTwo();

 private:
  QString path(const char* name) const { return dir_.filePath(QString::fromUtf8(name)); }
  QTemporaryDir dir_;
};

namespace {
const QString kSample = QStringLiteral("sample:sample-hf");
const QString kText = QStringLiteral("sample:texts/sample-valid.txt");
}  // namespace

void TestCli::initTestCase() { QVERIFY(dir_.isValid()); }

void TestCli::methodsDeclareTheirParameters() {
  const CliResult result = run_cli({"methods", "--json"});
  QCOMPARE(result.status, 0);
  const QJsonArray methods = result.json().array();
  QVERIFY(methods.size() >= 4);
  QStringList ids;
  for (const QJsonValue& method : methods) {
    ids << method["family"].toString() + "/" + method["id"].toString();
    for (const char* field : {"title", "paper", "params", "needs_calibration", "runs_here", "why_not"}) {
      QVERIFY2(method.toObject().contains(field), field);
    }
    for (const QJsonValue& param : method["params"].toArray()) QVERIFY(!param["help"].toString().isEmpty());
  }
  for (const char* id : {"kv/rtn", "kv/kivi", "weight/rtn", "weight_activation/smoothquant"})
    QVERIFY2(ids.contains(id), id);
}

void TestCli::readmeTableIsCurrent() {
  QFile readme(QS_SOURCE "/README.md");
  QVERIFY(readme.open(QIODevice::ReadOnly));
  const QByteArray text = readme.readAll();
  const qsizetype begin = text.indexOf('\n', text.indexOf("<!-- methods: begin")) + 1;
  const qsizetype end = text.indexOf("<!-- methods: end");
  QVERIFY(begin > 0 && end > begin);
  QCOMPARE(QString::fromUtf8(text.mid(begin, end - begin)), QString::fromUtf8(run_cli({"methods", "--markdown"}).out));
}

void TestCli::inspectShowsTheModelCard() {
  const QJsonObject model = run_cli({"inspect", kSample, "--json"}).json().object();
  QCOMPARE(model["kind"].toString(), "model");
  QCOMPARE(model["parameters"].toInt(), 5475584);
  QCOMPARE(model["layers"].toInt(), 6);
  QCOMPARE(model["kv_heads"].toInt(), 2);
  QCOMPARE(model["kv_bytes_per_token"].toInt(), 2 * 6 * 2 * 64 * 2);
  QCOMPARE(model["memory_estimate"]["weights"].toInt(), model["bytes"].toInt());  // as stored
}

void TestCli::captureStatsAndApplyAgree() {
  const QString capture = path("capture.h5");
  CliResult result = run_cli({"capture", "sample:sample-outliers-hf", "--text", kText, "--tokens", "256", "--weights",
                              "-o", capture, "--json"});
  QVERIFY2(result.status == 0, result.error);
  QCOMPARE(result.json()["tokens"].toInt(), 256);
  QVERIFY(result.json()["complete"].toBool());
  QVERIFY(result.json()["bytes"].toInt() <= result.json()["forecast_bytes"].toInt());

  result = run_cli({"inspect", capture, "--json"});
  QCOMPARE(result.json()["kind"].toString(), "capture");

  result = run_cli({"stats", capture, "--json"});
  QVERIFY2(result.status == 0, result.error);
  double key_ratio = 0.0, value_ratio = 0.0;
  for (const QJsonValue& tensor : result.json()["tensors"].toArray()) {
    if (tensor["tensor"] == "layer 1 key") key_ratio = tensor["max_median_ratio"].toDouble();
    if (tensor["tensor"] == "layer 1 value") value_ratio = tensor["max_median_ratio"].toDouble();
  }
  QVERIFY2(key_ratio > 15.0 && value_ratio < 3.0, "the model card says 26 for keys and below 3 for values");
  QCOMPARE(result.json()["attention"].toArray().size(), 6 * 4);

  result = run_cli({"apply", "kivi:bits=2,residual_length=32", "--in", capture, "-o", path("kivi.h5"), "--json"});
  QVERIFY2(result.status == 0, result.error);
  const QJsonArray tensors = result.json()["tensors"].toArray();
  QCOMPARE(tensors.size(), 12);
  for (const char* field : {"name", "shape", "mse", "relative_error", "sqnr_db", "cosine", "max_abs_error",
                            "effective_bits", "packed_bytes", "changed_fraction"}) {
    QVERIFY2(tensors[0].toObject().contains(field), field);
  }
  QVERIFY(tensors[0]["changed_fraction"].toDouble() > 0.5);
  QVERIFY(QFile::exists(path("kivi.h5")));
  // Per-token keys must do worse than per-channel keys where channels stand out: the point of the second sample.
  const QJsonArray rtn = run_cli({"apply", "rtn:scheme=token_asym,bits=2,group_size=32", "--in", capture, "--json"})
                             .json()["tensors"]
                             .toArray();
  QVERIFY(rtn[2]["relative_error"].toDouble() > tensors[2]["relative_error"].toDouble());
}

void TestCli::generateReproducesTheGoldenIds() {
  QFile file(QS_TEST_DATA "/models/sample-hf/golden_greedy.json");
  QVERIFY(file.open(QIODevice::ReadOnly));
  const QJsonValue golden = QJsonDocument::fromJson(file.readAll())["prompts"][0];
  const CliResult result = run_cli(
      {"generate", kSample, "--prompt", golden["prompt"].toString(), "--max-tokens", "64", "--ignore-eos", "--json"});
  QVERIFY2(result.status == 0, result.error);
  QCOMPARE(result.json()["prompt_ids"].toArray(), golden["prompt_ids"].toArray());
  QCOMPARE(result.json()["ids"].toArray(), golden["greedy_ids"].toArray());
  QVERIFY(result.json()["kv_bytes"].toInt() > 0);
}

void TestCli::modelsWithoutATokenizerTakeIds_data() {
  QTest::addColumn<QString>("architecture");
  QTest::newRow("mixtral") << "MixtralForCausalLM";
  QTest::newRow("gemma3") << "Gemma3ForCausalLM";
  QTest::newRow("opt_350m") << "OPTForCausalLM";
  QTest::newRow("falcon_40b") << "FalconForCausalLM";
}
void TestCli::modelsWithoutATokenizerTakeIds() {
  QFETCH(QString, architecture);
  const QString model = QStringLiteral(QS_TEST_DATA "/families/") + QTest::currentDataTag();
  const CliResult inspected = run_cli({"inspect", model, "--json"});
  QVERIFY2(inspected.status == 0, inspected.error);
  QCOMPARE(inspected.json()["architecture"].toString(), architecture);
  const CliResult result =
      run_cli({"generate", model, "--prompt-ids", "5,9,41", "--max-tokens", "6", "--ignore-eos", "--json"});
  QVERIFY2(result.status == 0, result.error);
  QCOMPARE(result.json()["prompt_ids"].toArray(), (QJsonArray{5, 9, 41}));
  QCOMPARE(result.json()["ids"].toArray().size(), 6);
  const CliResult text = run_cli({"generate", model, "--prompt", "Once"});
  QVERIFY(text.status != 0);
  QVERIFY2(text.error.contains("tokenizer"), text.error);
}

void TestCli::aChatIsWrittenInTheTemplateThatIsNamed() {
  const CliResult result = run_cli({"generate", kSample, "--chat", "The king", "--system", "Be brief.", "--template",
                                    "llama-2", "--max-tokens", "4", "--json"});
  QVERIFY2(result.status == 0, result.error);
  QCOMPARE(result.json()["chat"]["text"].toString(),
           QStringLiteral("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nThe king [/INST]"));
  QCOMPARE(result.json()["prompt_ids"][0].toInt(), 1);
  const CliResult unknown = run_cli({"generate", kSample, "--chat", "The king"});
  QCOMPARE(unknown.status, 1);
  QVERIFY2(unknown.error.contains("brings no chat template") && unknown.error.contains("llama-3"), unknown.error);
  QCOMPARE(run_cli({"generate", kSample, "--chat", "x", "--template", "alpaca"}).status, 2);
}

void TestCli::tokenizeShowsPlaces() {
  const CliResult result = run_cli({"tokenize", kSample, "--text", "Once upon \u00e9", "--json"});
  QVERIFY2(result.status == 0, result.error);
  QVERIFY(result.json()["exact_places"].toBool());
  QCOMPARE(result.json()["prefix_ids"].toArray(), (QJsonArray{1}));
  const QJsonArray tokens = result.json()["tokens"].toArray();
  QCOMPARE(tokens.size(), result.json()["ids"].toArray().size());
  QCOMPARE(tokens.first()["begin"].toInt(), 0);
  QCOMPARE(tokens.last()["end"].toInt(), 12);
  QCOMPARE(run_cli({"tokenize", kSample}).status, 2);
  QVERIFY(run_cli({"tokenize", kSample, "--text", "Once", "--ids"}).out.trimmed().size() > 0);
}

void TestCli::sameSeedSameText() {
  const QStringList call = {"generate",      kSample, "--prompt", "The king", "--max-tokens", "24",
                            "--temperature", "0.9",   "--top-p",  "0.95",     "--json"};
  const QJsonArray first = run_cli(call + QStringList{"--seed", "7"}).json()["ids"].toArray();
  QCOMPARE(first.size(), 24);
  QCOMPARE(run_cli(call + QStringList{"--seed", "7", "--threads", "1"}).json()["ids"].toArray(), first);
  QVERIFY(run_cli(call + QStringList{"--seed", "8"}).json()["ids"].toArray() != first);
}

void TestCli::evalGivesEveryTaskItsErrorAndProtocol() {
  const QStringList call = {"eval",  kSample, "--text", kText, "--window", "128", "--windows", "3", "--bos-each-window",
                            "--json"};
  const CliResult full = run_cli(call);
  QVERIFY2(full.status == 0, full.error);
  const CliResult kivi =
      run_cli(call + QStringList{"--kv", "kivi:bits=2,residual_length=32", "-o", path("results.h5")});
  QVERIFY2(kivi.status == 0, kivi.error);
  QCOMPARE(kivi.json()["fingerprint"].toString(), full.json()["fingerprint"].toString());
  QCOMPARE(kivi.json()["tasks"].toArray().size(), 3);
  QCOMPARE(full.json()["tasks"][1]["value"].toDouble(), 0.0);
  QVERIFY(kivi.json()["tasks"][1]["value"].toDouble() > 0.0);
  QVERIFY(kivi.json()["tasks"][0]["standard_error"].toDouble() > 0.0);
  QVERIFY(kivi.json()["memory"]["kv_bytes"].toInt() < kivi.json()["memory"]["kv_bytes_full_precision"].toInt());
  QCOMPARE(run_cli({"inspect", path("results.h5"), "--json"}).json()["kind"].toString(), "results");
  const CliResult other = run_cli(call + QStringList{"--kv-mode", "prefill_quantized"});
  QVERIFY(other.json()["fingerprint"].toString() != full.json()["fingerprint"].toString());
}

void TestCli::alphaSweepReportsEveryPoint() {
  const CliResult result =
      run_cli({"alpha-sweep", "sample:sample-outliers-hf", "--text", kText, "--alphas", "0.3:0.7:0.2", "--window",
               "128", "--windows", "2", "--calibration-tokens", "256", "--bits", "8x8", "--json"});
  QVERIFY2(result.status == 0, result.error);
  const QJsonArray points = result.json()["schemes"][0]["points"].toArray();
  QCOMPARE(points.size(), 3);
  for (const QJsonValue& point : points) QCOMPARE(point["state"].toString(), "done");
}

void TestCli::autoFindsAPerLayerLine() {
  const QTemporaryDir dir;
  const QString file = dir.filePath("auto.json");
  const CliResult result =
      run_cli({"auto", "sample:sample-hf", "--text", kText, "--window", "96", "--windows", "1", "--budget-bits", "7.5",
               "--candidates", "kivi:g=16,r=16;kivi:bits=8,g=16,r=16", "-o", file, "--json"});
  QVERIFY2(result.status == 0, result.error);
  QVERIFY(result.json()["bits"].toDouble() <= 7.5);
  QVERIFY(result.json()["setup"].toString().startsWith("layers:"));
  QCOMPARE(result.json()["candidates"].toArray().size(), 2);
  QVERIFY(QFile::exists(file));
}

void TestCli::verifyFindsNoFailure() {
  for (const char* side : {"kv", "weights"}) {
    const CliResult result = run_cli({"verify", QStringLiteral(QS_TEST_DATA "/golden/") + side, "--json"});
    QVERIFY2(result.status == 0, result.out + result.error);
    QVERIFY(result.json()["passed"].toInt() > 0);
  }
}

void TestCli::decodeBenchReportsRatios() {
  const CliResult result = run_cli({"bench", "decode", "--kv", "kivi:bits=2", "--context", "512", "--layers", "1",
                                    "--heads", "4", "--kv-heads", "2", "--head-dim", "64", "--steps", "4", "--json"});
  QVERIFY2(result.status == 0, result.error);
  QCOMPARE(result.json()["runs"].toArray().size(), 2);
  QCOMPARE(result.json()["runs"][0]["times_f16"].toDouble(), 1.0);
  QVERIFY(result.json()["runs"][1]["cache_bytes"].toInt() < result.json()["runs"][0]["cache_bytes"].toInt());
}

void TestCli::badUsageIsTwo_data() {
  QTest::addColumn<QStringList>("arguments");
  QTest::addColumn<QByteArray>("says");
  QTest::newRow("no verb") << QStringList{} << QByteArray("subcommand");
  QTest::newRow("unknown verb") << QStringList{"frobnicate"} << QByteArray("frobnicate");
  QTest::newRow("unknown method") << QStringList{"eval", kSample, "--text", kText, "--kv", "kivvi"}
                                  << QByteArray("kivvi");
  QTest::newRow("unknown parameter") << QStringList{"eval", kSample, "--text", kText, "--kv", "kivi:bitz=2"}
                                     << QByteArray("bitz");
  QTest::newRow("bits out of range") << QStringList{"eval", kSample, "--text", kText, "--kv", "kivi:k_bits=99"}
                                     << QByteArray("99");
  QTest::newRow("unknown task") << QStringList{"eval", kSample, "--text", kText, "--task", "gsm9k"}
                                << QByteArray("gsm9k");
  QTest::newRow("alpha out of range") << QStringList{"alpha-sweep", kSample, "--text", kText, "--alphas", "0.5,1.5"}
                                      << QByteArray("1.5");
  QTest::newRow("no calibration") << QStringList{"generate", kSample, "--weights", "smoothquant"}
                                  << QByteArray("--calibration");
  QTest::newRow("unknown dtype") << QStringList{"generate", kSample, "--dtype", "int3"} << QByteArray("int3");
  QTest::newRow("negative tokens") << QStringList{"capture", kSample, "--text", kText, "--tokens", "-1", "-o", "x.h5"}
                                   << QByteArray("-1");
  QTest::newRow("unknown tap") << QStringList{"capture", kSample, "--text", kText, "--taps", "keys", "-o", "x.h5"}
                               << QByteArray("keys");
}

void TestCli::badUsageIsTwo() {
  QFETCH(QStringList, arguments);
  QFETCH(QByteArray, says);
  const CliResult result = run_cli(arguments);
  QCOMPARE(result.status, 2);
  QVERIFY2(result.out.isEmpty(), result.out);
  QVERIFY2(result.error.contains(says), result.error);
}

QTEST_GUILESS_MAIN(TestCli)
#include "tst_cli.moc"
