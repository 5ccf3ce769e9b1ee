#include <QDir>
#include <QDirIterator>
#include <QFile>
#include <QTemporaryDir>
#include <QTest>
#include <functional>

#include "tests/support/run_cli.h"

// Wrong files through the whole program: one clear message that names the file, exit status 1, nothing on standard
// output, nothing half-written.
class TestCliWrongInput : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void brokenModelsAreNamed_data();
  void brokenModelsAreNamed();
  void brokenFilesAreNamed_data();
  void brokenFilesAreNamed();
  void tooLittleTextIsSaid();
  void tooLittleMemoryIsSaid();
  void aFullDiskLeavesNothing();
};

namespace {

using Damage = std::function<void(const QString& folder)>;

QByteArray slurp(const QString& path) {
  QFile file(path);
  return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
}

void spit(const QString& path, const QByteArray& bytes) {
  QFile file(path);
  if (!file.open(QIODevice::WriteOnly | QIODevice::Truncate) || file.write(bytes) != bytes.size())
    qFatal("cannot write a test file");
}

void replace_in(const QString& path, const QByteArray& from, const QByteArray& to) {
  QByteArray bytes = slurp(path);
  if (!bytes.contains(from)) qFatal("the test file lacks %s", from.constData());
  spit(path, bytes.replace(from, to));
}

void copy_model(const QString& folder) {
  QDir().mkpath(folder);
  QDirIterator files(QStringLiteral(QS_TEST_DATA "/models/stories260K-hf"), QDir::Files);
  while (files.hasNext()) {
    const QString from = files.next();
    spit(folder + "/" + files.fileName(), slurp(from));
  }
}

}  // namespace

Q_DECLARE_METATYPE(Damage)

void TestCliWrongInput::brokenModelsAreNamed_data() {
  QTest::addColumn<Damage>("damage");
  QTest::addColumn<QByteArray>("names");
  const auto weights = [](const QString& folder) { return folder + "/model.safetensors"; };
  const auto row = [](const char* name, Damage damage, const char* names) {
    QTest::newRow(name) << damage << QByteArray(names);
  };
  row(
      "no config", [](const QString& f) { QFile::remove(f + "/config.json"); }, "config.json");
  row(
      "empty config", [](const QString& f) { spit(f + "/config.json", ""); }, "config.json");
  row(
      "config cut off", [](const QString& f) { spit(f + "/config.json", slurp(f + "/config.json").left(100)); },
      "config.json");
  row(
      "unknown architecture",
      [](const QString& f) { replace_in(f + "/config.json", "LlamaForCausalLM", "FooForCausalLM"); }, "FooForCausalLM");
  row(
      "heads that do not divide",
      [](const QString& f) {
        replace_in(f + "/config.json", "\"num_key_value_heads\": 4", "\"num_key_value_heads\": 3");
      },
      "num_key_value_heads");
  row(
      "negative layers",
      [](const QString& f) { replace_in(f + "/config.json", "\"num_hidden_layers\": 5", "\"num_hidden_layers\": -5"); },
      "num_hidden_layers");
  row(
      "more layers than weights",
      [](const QString& f) { replace_in(f + "/config.json", "\"num_hidden_layers\": 5", "\"num_hidden_layers\": 6"); },
      "layers.5");
  row(
      "no weights", [weights](const QString& f) { QFile::remove(weights(f)); }, "model.safetensors");
  row(
      "empty weights", [weights](const QString& f) { spit(weights(f), ""); }, "model.safetensors");
  row(
      "weights cut off", [weights](const QString& f) { spit(weights(f), slurp(weights(f)).left(500000)); },
      "model.safetensors");
  row(
      "header longer than the file",
      [weights](const QString& f) {
        spit(weights(f), QByteArray("\xff\xff\xff\xff\xff\xff\xff\x7f", 8) + slurp(weights(f)).mid(8));
      },
      "model.safetensors");
  row(
      "header is no JSON",
      [weights](const QString& f) {
        QByteArray b = slurp(weights(f));
        b[8] = 'x';
        spit(weights(f), b);
      },
      "model.safetensors");
  row(
      "unknown dtype", [weights](const QString& f) { replace_in(weights(f), "\"F32\"", "\"F99\""); }, "F99");
  row(
      "lying dtype", [weights](const QString& f) { replace_in(weights(f), "\"F32\"", "\"F16\""); },
      "model.safetensors");
  row(
      "lying index",
      [weights](const QString& f) {
        QFile::remove(weights(f));
        spit(f + "/model.safetensors.index.json",
             "{\"weight_map\":{\"model.norm.weight\":\"missing-00001.safetensors\"}}");
      },
      "missing-00001.safetensors");
  row(
      "index out of the folder",
      [weights](const QString& f) {
        QFile::remove(weights(f));
        spit(f + "/model.safetensors.index.json", "{\"weight_map\":{\"model.norm.weight\":\"../../etc/passwd\"}}");
      },
      "index.json");
  row(
      "no tokenizer",
      [](const QString& f) {
        for (const char* name : {"/tokenizer.json", "/tokenizer.model"}) QFile::remove(f + name);
      },
      "tokenizer");
  row(
      "tokenizer cut off",
      [](const QString& f) { spit(f + "/tokenizer.json", slurp(f + "/tokenizer.json").left(999)); }, "tokenizer.json");
  row(
      "NaN in weights",
      [weights](const QString& f) {
        QByteArray bytes = slurp(weights(f));
        for (qsizetype i = bytes.size() - 4; i < bytes.size(); ++i) bytes[i] = '\xff';
        spit(weights(f), bytes);
      },
      "NaN");
}

void TestCliWrongInput::brokenModelsAreNamed() {
  QFETCH(Damage, damage);
  QFETCH(QByteArray, names);
  QTemporaryDir dir;
  const QString folder = dir.filePath("model");
  copy_model(folder);
  QCOMPARE(run_cli({"generate", folder, "--prompt", "a", "--max-tokens", "1"}).status, 0);
  damage(folder);
  const CliResult result = run_cli({"generate", folder, "--prompt", "a", "--max-tokens", "1"});
  QCOMPARE(result.status, 1);
  QVERIFY2(result.out.isEmpty(), result.out);
  QVERIFY2(result.error.contains(names), result.error);
}

void TestCliWrongInput::brokenFilesAreNamed_data() {
  QTest::addColumn<QByteArray>("bytes");
  QTest::addColumn<QString>("file");
  QTest::addColumn<QStringList>("verb");
  QTest::newRow("capture that is text") << QByteArray("hello") << "bad.h5" << QStringList{"stats"};
  QTest::newRow("empty capture") << QByteArray() << "bad.h5" << QStringList{"stats"};
  QTest::newRow("capture cut off") << QByteArray("\x89HDF\r\n\x1a\n\0\0\0\0", 12) << "bad.h5" << QStringList{"stats"};
  QTest::newRow("session cut off") << QByteArray("{\"format\": \"quantoscope-session\", ") << "bad.qsession"
                                   << QStringList{"inspect"};
  QTest::newRow("JSON that is no session") << QByteArray("{\"a\": 1}") << "bad.qsession" << QStringList{"inspect"};
  QTest::newRow("empty model file") << QByteArray() << "bad.bin" << QStringList{"inspect"};
  QTest::newRow("garbage model file") << QByteArray(64, 'z') << "bad.bin" << QStringList{"inspect"};
  QTest::newRow("golden folder without manifest") << QByteArray() << "." << QStringList{"verify"};
}

void TestCliWrongInput::brokenFilesAreNamed() {
  QFETCH(QByteArray, bytes);
  QFETCH(QString, file);
  QFETCH(QStringList, verb);
  QTemporaryDir dir;
  const QString path = dir.filePath(file);
  if (file != ".") spit(path, bytes);
  const CliResult result = run_cli(verb + QStringList{path});
  QCOMPARE(result.status, 1);
  QVERIFY2(result.out.isEmpty(), result.out);
  QVERIFY2(result.error.contains(file == "." ? "manifest.json" : file.toUtf8()), result.error);
}

void TestCliWrongInput::tooLittleTextIsSaid() {
  QTemporaryDir dir;
  spit(dir.filePath("short.txt"), "Once.");
  const CliResult result =
      run_cli({"eval", "sample:sample-hf", "--text", dir.filePath("short.txt"), "--window", "512"});
  QCOMPARE(result.status, 1);
  QVERIFY2(result.error.contains("short.txt") && result.error.contains("512"), result.error);
}

void TestCliWrongInput::tooLittleMemoryIsSaid() {
  // The program itself maps about 1.2 GiB of libraries, so the limit leaves room for those but not for the cache asked
  // for.
  const CliResult result =
      run_cli({"bench", "decode", "--context", "1024k", "--layers", "64"}, QStringLiteral("ulimit -v 6000000"));
  QCOMPARE(result.status, 1);
  QVERIFY2(result.error.contains("MiB"), result.error);
}

void TestCliWrongInput::aFullDiskLeavesNothing() {
  QTemporaryDir dir;
  const QString out = dir.filePath("capture.h5");
  const CliResult result =
      run_cli({"capture", "sample:sample-hf", "--text", "sample:texts/sample-valid.txt", "--tokens", "512", "-o", out},
              QStringLiteral("trap '' XFSZ; ulimit -f 200"));
  QCOMPARE(result.status, 1);
  QVERIFY2(result.error.contains("capture.h5"), result.error);
  const QStringList left = QDir(dir.path()).entryList(QDir::Files | QDir::NoDotAndDotDot);
  QVERIFY2(left.isEmpty() || run_cli({"inspect", out}).status == 0,
           qPrintable("left behind and unreadable: " + left.join(", ")));
}

QTEST_GUILESS_MAIN(TestCliWrongInput)
#include "tst_cli_wrong_input.moc"
