#include <QRandomGenerator>
#include <QSignalSpy>
#include <QTest>

#include "sessions/session_document.h"

using namespace qs;

class TestSessionDocument : public QObject {
  Q_OBJECT
 private Q_SLOTS:
  void undoAndRedoWalkTheSameStates() {
    SessionDocument document;
    QList<SessionState> states{document.state()};
    for (int step = 0; step < 20; ++step) {
      document.edit(QStringLiteral("step"), [&](SessionState& s) { s.title = QString::number(step); });
      states << document.state();
    }
    for (int step = 19; step >= 0; --step) {
      document.undo();
      QVERIFY(document.state() == states[step]);
    }
    QVERIFY(!document.canUndo());
    for (int step = 1; step <= 20; ++step) {
      document.redo();
      QVERIFY(document.state() == states[step]);
    }
    QVERIFY(!document.canRedo());
  }

  void stepsWithOneMergeKeyAreUndoneAtOnce() {
    SessionDocument document;
    for (int value = 0; value < 30; ++value) {
      document.edit(
          QStringLiteral("drag"), [&](SessionState& s) { s.notes = QString::number(value); }, QStringLiteral("slider"));
    }
    document.edit(QStringLiteral("other"), [](SessionState& s) { s.title = QStringLiteral("x"); });
    document.undo();
    QCOMPARE(document.state().notes, QStringLiteral("29"));
    document.undo();
    QVERIFY(document.state().notes.isEmpty());
    QVERIFY(!document.canUndo());
  }

  void aChangeThatChangesNothingIsNoStep() {
    SessionDocument document;
    QSignalSpy changed(&document, &SessionDocument::changed);
    document.edit(QStringLiteral("nothing"), [](SessionState&) {});
    QVERIFY(!document.canUndo());
    QCOMPARE(changed.count(), 0);
  }

  void undoLeavesTheSelectionWhereTheUserLooks() {
    SessionDocument document;
    document.edit(QStringLiteral("title"), [](SessionState& s) { s.title = QStringLiteral("x"); });
    document.note([](SessionState& s) { s.selection.layer = 5; });
    document.undo();
    QCOMPARE(document.state().selection.layer, 5);
    QVERIFY(document.state().title.isEmpty());
  }

  void savedAndModifiedAreToldApart() {
    SessionDocument document;
    QVERIFY(!document.isModified());
    document.edit(QStringLiteral("title"), [](SessionState& s) { s.title = QStringLiteral("x"); });
    QVERIFY(document.isModified());
    document.markSaved(QStringLiteral("/a.qsession"));
    QVERIFY(!document.isModified());
    document.undo();
    QVERIFY(document.isModified());
    document.redo();
    QVERIFY(!document.isModified());
  }

  void historyIsBounded() {
    SessionDocument document;
    for (int i = 0; i < SessionDocument::kMaxUndo + 50; ++i) {
      document.edit(QStringLiteral("n"), [&](SessionState& s) { s.title = QString::number(i); });
    }
    int steps = 0;
    for (; document.canUndo(); ++steps) document.undo();
    QCOMPARE(steps, SessionDocument::kMaxUndo);
  }

  void randomUndoRedoAndEditsNeverLoseTheThread() {
    SessionDocument document;
    QRandomGenerator random(11);
    QList<SessionState> history{document.state()};
    qsizetype at = 0;
    for (int round = 0; round < 5000; ++round) {
      switch (random.bounded(3)) {
        case 0:
          document.edit(QStringLiteral("e"), [&](SessionState& s) {
            s.variants << VariantEntry{QString::number(round), {}, {}, {}, {}};
          });
          history.resize(at + 1);
          history << document.state();
          ++at;
          if (history.size() > SessionDocument::kMaxUndo + 1) {
            history.removeFirst();
            --at;
          }
          break;
        case 1:
          document.undo();
          at = std::max<qsizetype>(0, at - 1);
          break;
        default:
          document.redo();
          at = std::min(history.size() - 1, at + 1);
      }
      QVERIFY(document.state() == history[at]);
      QCOMPARE(document.canUndo(), at > 0);
      QCOMPARE(document.canRedo(), at + 1 < history.size());
    }
  }
};

QTEST_GUILESS_MAIN(TestSessionDocument)
#include "tst_session_document.moc"
