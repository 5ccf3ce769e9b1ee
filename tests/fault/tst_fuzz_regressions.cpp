#include <QtTest>
#include <map>

#include "tests/fuzz/readers.h"

namespace {

const std::map<QString, void (*)(qs::fuzz::Input)> kReaders = {
    {"gguf", &qs::fuzz::gguf},
    {"safetensors", &qs::fuzz::safetensors},
    {"llama2c", &qs::fuzz::llama2c},
    {"tokenizer_json", &qs::fuzz::tokenizer_json},
    {"sentencepiece", &qs::fuzz::sentencepiece},
};

QByteArray contents(const QString& path) {
  QFile file(path);
  return file.open(QIODevice::ReadOnly) ? file.readAll() : QByteArray();
}

}  // namespace

/// Gives every file in tests/data/fuzz to its reader, as the fuzz targets do. A crash fails the test.
class TestFuzzRegressions : public QObject {
  Q_OBJECT

 private Q_SLOTS:
  void everyReaderHasACorpus() {
    QStringList found = QDir(QStringLiteral(QS_TEST_DATA "/fuzz")).entryList(QDir::Dirs | QDir::NoDotAndDotDot);
    QStringList expected;
    for (const auto& [name, read] : kReaders) expected << name;
    found.sort();
    expected.sort();
    QCOMPARE(found, expected);
  }

  void filesAreReadOrRefused_data() {
    QTest::addColumn<QString>("reader");
    QTest::addColumn<QString>("path");
    for (const auto& [name, read] : kReaders) {
      const QDir folder(QStringLiteral(QS_TEST_DATA "/fuzz/") + name);
      for (const QString& file : folder.entryList(QDir::Files))
        QTest::newRow(qPrintable(name + QLatin1Char('/') + file)) << name << folder.filePath(file);
    }
  }
  void filesAreReadOrRefused() {
    QFETCH(QString, reader);
    QFETCH(QString, path);
    const QByteArray bytes = contents(path);
    QVERIFY(!bytes.isEmpty());
    const auto read = kReaders.at(reader);
    const auto* data = reinterpret_cast<const std::byte*>(bytes.constData());
    read({data, static_cast<std::size_t>(bytes.size())});
    for (qsizetype size = 0; size < bytes.size(); size += 1 + size / 16) read({data, static_cast<std::size_t>(size)});
  }
};

QTEST_GUILESS_MAIN(TestFuzzRegressions)
#include "tst_fuzz_regressions.moc"
