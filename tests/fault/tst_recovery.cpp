#include <QDir>
#include <QFile>
#include <QProcess>
#include <QTemporaryDir>
#include <QTest>

#include "backend/types/error.h"
#include "sessions/recovery.h"
#include "sessions/session_file.h"

using namespace qs;

namespace {

SessionState titled(const QString& title) {
  SessionState state;
  state.title = title;
  return state;
}

/// The child: autosaves once, says so and waits to be killed.
int autosave_and_wait(const QString& folder) {
  Recovery recovery(folder);
  recovery.save(titled(QStringLiteral("unsaved work")), QStringLiteral("/home/a/work.qsession"));
  QTextStream(stdout) << "saved" << Qt::endl;
  QTextStream(stdin).readLine();
  return 0;
}

}  // namespace

class TestRecovery : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void whatAKilledProgramAutosavedIsOfferedOnce() {
    QTemporaryDir folder;
    QProcess child;
    child.start(QCoreApplication::applicationFilePath(), {QStringLiteral("--child"), folder.path()});
    QVERIFY(child.waitForReadyRead(10000));
    QCOMPARE(child.readAll().trimmed(), QByteArray("saved"));

    Recovery next(folder.path());
    QVERIFY2(!next.find(), "the program that wrote it is alive");
    child.kill();
    QVERIFY(child.waitForFinished(10000));

    const auto found = next.find();
    QVERIFY(found);
    QVERIFY(found->state == titled(QStringLiteral("unsaved work")));
    QCOMPARE(found->path, QStringLiteral("/home/a/work.qsession"));
    next.discard(*found);
    QVERIFY(!next.find());
  }

  void aNormalEndLeavesNothing() {
    QTemporaryDir folder;
    {
      Recovery recovery(folder.path());
      recovery.save(titled(QStringLiteral("x")), {});
    }
    QVERIFY(QDir(folder.path()).entryList(QDir::Files).isEmpty());
  }

  void aDamagedAutosaveIsSkippedAndNamed() {
    QTemporaryDir folder;
    const auto write = [&](const char* name, const QByteArray& text) {
      QFile file(folder.filePath(QLatin1String(name)));
      QVERIFY(file.open(QIODevice::WriteOnly));
      file.write(text);
    };
    write("bad.autosave", "/x.qsession\n{\"format\": ");
    write("empty.autosave", "");
    Recovery next(folder.path());
    QString problem;
    QVERIFY(!next.find(&problem));
    QVERIFY2(problem.contains(QStringLiteral(".autosave")), qPrintable(problem));

    write("good.autosave", "\n" + session_to_json(titled(QStringLiteral("good"))));
    const auto found = next.find();
    QVERIFY(found);
    QCOMPARE(found->state.title, QStringLiteral("good"));
  }

  void aFolderThatCannotBeMadeIsNamed() {
    QTemporaryDir folder;
    QFile file(folder.filePath(QStringLiteral("plain")));
    QVERIFY(file.open(QIODevice::WriteOnly));
    QVERIFY_THROWS_EXCEPTION(Error, Recovery(file.fileName() + QStringLiteral("/below")));
  }
};

int main(int argc, char** argv) {
  QCoreApplication program(argc, argv);
  if (argc > 2 && QByteArray(argv[1]) == "--child") return autosave_and_wait(QString::fromLocal8Bit(argv[2]));
  TestRecovery test;
  return QTest::qExec(&test, argc, argv);
}
#include "tst_recovery.moc"
