#include <QDir>
#include <QFile>
#include <QJsonArray>
#include <QJsonDocument>
#include <QRandomGenerator>
#include <QTemporaryDir>
#include <QTest>

#include "backend/types/error.h"
#include "sessions/recent_files.h"
#include "sessions/session_file.h"

using namespace qs;

namespace {

class Random {
 public:
  explicit Random(quint32 seed) : generator_(seed) {}
  int number(int low, int high) { return generator_.bounded(low, high); }
  double real() { return generator_.generateDouble(); }
  QString text() {
    static const QString letters = QStringLiteral("ab \"\\/\n\tZäß漢▁🙂{}[],:0");
    QString result;
    for (int i = number(0, 9); i > 0; --i) {
      // Whole characters only: half a surrogate pair is no text.
      const int at = number(0, int(letters.size()));
      if (letters[at].isSurrogate()) continue;
      result += letters[at];
    }
    return result;
  }
  QString path() {
    switch (number(0, 4)) {
      case 0:
        return {};
      case 1:
        return QStringLiteral("sample:") + text();
      case 2:
        return QStringLiteral("data:x%1.h5").arg(number(0, 99));
      default:
        return QStringLiteral("/models/m%1/file.bin").arg(number(0, 99));
    }
  }
  SessionState state() {
    SessionState s;
    s.title = text();
    s.notes = text();
    s.resultsPath = path();
    s.layout = text();
    for (int i = number(0, 4); i > 0; --i) s.models << ModelEntry{QStringLiteral("m%1").arg(i), path(), text(), text()};
    for (int i = number(0, 4); i > 0; --i) {
      s.captures << CaptureEntry{QStringLiteral("c%1").arg(i), path(), text(), path(), number(0, 100000)};
    }
    for (int i = number(0, 4); i > 0; --i)
      s.variants << VariantEntry{QStringLiteral("v%1").arg(i), text(), text(), text(), text(), path()};
    for (int i = number(0, 4); i > 0; --i) {
      s.pins << PinEntry{text(), text(), text(), number(-1, 80), number(-1, 64), number(-1, 4096), number(-1, 32768)};
    }
    for (int i = number(0, 4); i > 0; --i) {
      QJsonObject settings;
      for (int k = number(0, 5); k > 0; --k)
        settings.insert(text(), k % 2 ? QJsonValue(real()) : QJsonValue(QJsonArray{k, text(), true}));
      s.views << ViewEntry{text(), number(0, 2) == 1, settings};
    }
    s.activeView = number(0, 9);
    s.selection = {
        text(),       text(),        text(),           text(),           number(0, 80),     text(),
        number(0, 8), number(0, 64), number(-1, 4096), number(-1, 4096), number(-1, 32768), number(-1, 32768),
        real()};
    s.chat.prompt = text();
    s.chat.system = text();
    s.chat.temperature = 2 * real();
    s.chat.topP = real();
    s.chat.minP = real();
    s.chat.repetitionPenalty = 1 + real();
    s.chat.topK = number(0, 100);
    s.chat.maxTokens = number(1, 4096);
    s.chat.seed = generator_.generate64();
    for (int i = number(0, 4); i > 0; --i) s.chat.variantIds << text();
    return s;
  }

 private:
  QRandomGenerator generator_;
};

QString refusal(const QByteArray& json) {
  try {
    session_from_json(json, QStringLiteral("test.qsession"));
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
  return {};
}

QByteArray with_field(const QString& key, const QJsonValue& value) {
  QJsonObject root = QJsonDocument::fromJson(session_to_json({})).object();
  root.insert(key, value);
  return QJsonDocument(root).toJson();
}

}  // namespace

class TestSessionFile : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void savingLoadingAndSavingAgainGivesTheSameBytes() {
    QTemporaryDir folder;
    const QString path = folder.filePath(QStringLiteral("a.qsession"));
    Random random(20240607);
    for (int round = 0; round < 1000; ++round) {
      const SessionState state = random.state();
      const QByteArray first = session_to_json(state);
      const SessionState again = session_from_json(first, path);
      QVERIFY2(again == state, first.constData());
      QCOMPARE(session_to_json(again), first);
      if (round % 20 == 0) {
        write_session(path, state);
        QFile file(path);
        QVERIFY(file.open(QIODevice::ReadOnly));
        const QByteArray on_disk = file.readAll();
        const SessionState loaded = read_session(path);
        QVERIFY(loaded == state);
        write_session(path, loaded);
        file.seek(0);
        QFile second(path);
        QVERIFY(second.open(QIODevice::ReadOnly));
        QCOMPARE(second.readAll(), on_disk);
      }
    }
  }

  void pathsBelowTheSessionAreStoredRelative() {
    QTemporaryDir folder;
    SessionState state;
    state.models << ModelEntry{QStringLiteral("m"), folder.filePath(QStringLiteral("models/tiny")), {}, {}}
                 << ModelEntry{QStringLiteral("n"), QStringLiteral("sample:sample-hf"), {}, {}}
                 << ModelEntry{QStringLiteral("o"), QStringLiteral("/elsewhere/model"), {}, {}};
    write_session(folder.filePath(QStringLiteral("s.qsession")), state);
    QFile file(folder.filePath(QStringLiteral("s.qsession")));
    QVERIFY(file.open(QIODevice::ReadOnly));
    const QByteArray text = file.readAll();
    QVERIFY(text.contains("\"models/tiny\""));
    QVERIFY(text.contains("\"sample:sample-hf\""));
    QVERIFY(text.contains("\"/elsewhere/model\""));
    QVERIFY(!text.contains(folder.path().toUtf8()));

    // The folder moves with its session.
    QTemporaryDir other;
    QVERIFY(QFile::copy(file.fileName(), other.filePath(QStringLiteral("s.qsession"))));
    QCOMPARE(read_session(other.filePath(QStringLiteral("s.qsession"))).models[0].path,
             other.filePath(QStringLiteral("models/tiny")));
  }

  void theBundledSampleSessionIsReadAsItStands() {
    QFile file(QStringLiteral(QS_RESOURCES "/sample.qsession"));
    QVERIFY(file.open(QIODevice::ReadOnly));
    const QByteArray text = file.readAll();
    const SessionState state = session_from_json(text, file.fileName());
    QCOMPARE(state.models.size(), 2);
    QCOMPARE(session_to_json(state), text);
  }

  void everyTruncationIsRefusedWithTheFilesName() {
    Random random(3);
    const QByteArray whole = session_to_json(random.state()).trimmed();
    for (qsizetype length = 0; length < whole.size(); length += 7) {
      const QString message = refusal(whole.left(length));
      QVERIFY2(message.contains(QStringLiteral("test.qsession")), qPrintable(message));
    }
  }

  void anotherVersionIsRefusedWithBothNumbers() {
    const QString message = refusal(with_field(QStringLiteral("version"), 7));
    QVERIFY2(message.contains(QStringLiteral("version 7")) && message.contains(QStringLiteral("version 1")),
             qPrintable(message));
  }

  void wrongValuesAreNamedWithTheirPlace_data() {
    QTest::addColumn<QString>("key");
    QTest::addColumn<QJsonValue>("value");
    QTest::addColumn<QString>("expected");
    QTest::newRow("unknown field") << "colour" << QJsonValue(1) << "'colour'";
    QTest::newRow("text for a list") << "models" << QJsonValue("x") << "'models' must be a list";
    QTest::newRow("number for an entry") << "models" << QJsonValue(QJsonArray{1}) << "'models[0]' must be an object";
    QTest::newRow("no id") << "variants" << QJsonValue(QJsonArray{QJsonObject{{"name", "x"}}}) << "'variants[0]'";
    QTest::newRow("id twice") << "models" << QJsonValue(QJsonArray{QJsonObject{{"id", "x"}}, QJsonObject{{"id", "x"}}})
                              << "'models[1]'";
    QTest::newRow("negative layer") << "selection" << QJsonValue(QJsonObject{{"layer", -2}}) << "'selection.layer'";
    QTest::newRow("half a token") << "chat" << QJsonValue(QJsonObject{{"maxTokens", 1.5}}) << "'chat.maxTokens'";
    QTest::newRow("huge number") << "activeView" << QJsonValue(1e300) << "'activeView'";
    QTest::newRow("unknown field inside") << "chat" << QJsonValue(QJsonObject{{"tone", "kind"}}) << "'chat.tone'";
  }
  void wrongValuesAreNamedWithTheirPlace() {
    QFETCH(QString, key);
    QFETCH(QJsonValue, value);
    QFETCH(QString, expected);
    const QString message = refusal(with_field(key, value));
    QVERIFY2(message.contains(expected), qPrintable(message));
  }

  void hostileFilesAreRefusedAndNotBelieved() {
    QVERIFY(!refusal("").isEmpty());
    QVERIFY(!refusal("null").isEmpty());
    QVERIFY(!refusal("[]").isEmpty());
    QVERIFY(!refusal(QByteArray(200000, '[')).isEmpty());
    QVERIFY(!refusal(QByteArray("\x89HDF\r\n\x1a\n", 8)).isEmpty());
    QJsonArray many;
    for (int i = 0; i < 10001; ++i) many.append(QJsonObject{});
    QVERIFY(refusal(with_field(QStringLiteral("pins"), many)).contains(QStringLiteral("10001")));
  }

  void aFolderAndAMissingFileAreNamed() {
    QTemporaryDir folder;
    QVERIFY_THROWS_EXCEPTION(Error, read_session(folder.path()));
    QVERIFY_THROWS_EXCEPTION(Error, read_session(folder.filePath(QStringLiteral("none.qsession"))));
    QVERIFY_THROWS_EXCEPTION(Error, write_session(folder.filePath(QStringLiteral("no/such/folder.qsession")), {}));
  }

  void filesAreRecognizedByContent() {
    QTemporaryDir folder;
    const auto write = [&](const char* name, const QByteArray& bytes) {
      QFile file(folder.filePath(QLatin1String(name)));
      if (file.open(QIODevice::WriteOnly)) file.write(bytes);
      return file.fileName();
    };
    QCOMPARE(detect_file_kind(write("a.txt", session_to_json({}))), FileKind::Session);
    QCOMPARE(detect_file_kind(write("b.qsession", "\x89HDF\r\n\x1a\n....")), FileKind::Capture);
    QCOMPARE(detect_file_kind(write("c.h5", "\x89HDF\r\n\x1a\n..quantoscope-results..")), FileKind::Results);
    QCOMPARE(detect_file_kind(write("d.bin", "no model at all")), FileKind::Unknown);
    QCOMPARE(detect_file_kind(folder.filePath(QStringLiteral("nothing"))), FileKind::Missing);
    QCOMPARE(detect_file_kind(QStringLiteral(QS_TEST_DATA "/models/stories260K/stories260K.bin")), FileKind::ModelFile);
    QCOMPARE(detect_file_kind(QStringLiteral(QS_TEST_DATA "/models/stories260K-hf")), FileKind::ModelFolder);
    QCOMPARE(detect_file_kind(folder.path()), FileKind::Unknown);
  }

  void recentFilesAreUniqueAndNewestFirst() {
    QStringList recent;
    for (int i = 0; i < 30; ++i) recent = with_recent(recent, QStringLiteral("/f%1").arg(i % 12), 10);
    QCOMPARE(recent.size(), 10);
    QCOMPARE(recent.first(), QStringLiteral("/f5"));
    QCOMPARE(QSet<QString>(recent.begin(), recent.end()).size(), 10);
  }
};

QTEST_GUILESS_MAIN(TestSessionFile)
#include "tst_session_file.moc"
