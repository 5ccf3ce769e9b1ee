#include <QAbstractButton>
#include <QComboBox>
#include <QDockWidget>
#include <QDropEvent>
#include <QFile>
#include <QLabel>
#include <QLineEdit>
#include <QListWidget>
#include <QMenuBar>
#include <QMimeData>
#include <QPlainTextEdit>
#include <QRandomGenerator>
#include <QSignalSpy>
#include <QSpinBox>
#include <QTemporaryDir>
#include <QTest>

#include "app/actions.h"
#include "app/command_palette.h"
#include "app/docks/inspector_dock.h"
#include "app/headless.h"
#include "app/main_window.h"
#include "app/preferences_dialog.h"
#include "app/sample_start.h"
#include "app/theme.h"
#include "app/view_area.h"
#include "app/workbench.h"
#include "backend/method_registry.h"
#include "backend/model/threads.h"
#include "sessions/session_document.h"
#include "sessions/session_file.h"
#include "widgets/view_base.h"
#include "widgets/views/chat_view.h"
#include "widgets/views/locality_view.h"

using namespace qs;

class TestMainWindow : public QObject {
  Q_OBJECT
  QTemporaryDir data_;
  std::unique_ptr<Workbench> workbench_;
  std::unique_ptr<MainWindow> window_;

  QAction* action(const char* id) { return window_->actions().action(QLatin1String(id)); }

  void drop(const QString& path) {
    QMimeData mime;
    mime.setUrls({QUrl::fromLocalFile(path)});
    QDragEnterEvent enter(QPoint(10, 10), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
    QApplication::sendEvent(window_.get(), &enter);
    QVERIFY(enter.isAccepted());
    QDropEvent event(QPointF(10, 10), Qt::CopyAction, &mime, Qt::LeftButton, Qt::NoModifier);
    QApplication::sendEvent(window_.get(), &event);
  }

 private Q_SLOTS:
  void initTestCase() {
    qputenv("QUANTOSCOPE_DATA", data_.path().toUtf8());
    qputenv("QUANTOSCOPE_SETTINGS", data_.filePath(QStringLiteral("settings.ini")).toUtf8());
    set_threads(1);
    apply_theme(Theme::Light);
  }

  void init() {
    workbench_ = std::make_unique<Workbench>();
    window_ = std::make_unique<MainWindow>(*workbench_);
    window_->setProperty("quiet", true);
    window_->resize(1280, 800);
    window_->show();
    window_->activateWindow();
    QVERIFY(QTest::qWaitForWindowActive(window_.get()));
    QVERIFY(window_->openSample());
  }

  void cleanup() {
    window_.reset();
    workbench_.reset();
  }

  void theSampleFillsItsViews() {
    QVERIFY(window_->area().views().size() >= 5);
    for (const char* type : {"outliers", "error", "attention"}) {
      ViewBase* view = window_->openView(QLatin1String(type));
      QVERIFY2(view, type);
      const QString missing = fill_view(*window_, *view, 60000);
      QVERIFY2(missing.isEmpty(), qPrintable(QLatin1String(type) + QStringLiteral(": ") + missing));
      QVERIFY(view->dataTable()->rowCount() > 0);
    }
    QVERIFY(window_->findChild<QWidget*>(QStringLiteral("hint"))->isVisible());
    QVERIFY2(window_->bannerText().isEmpty(), qPrintable(window_->bannerText()));
  }

  void theSampleChatsByItselfOnceAndItsCacheIsMeasured() {
    auto* chat = qobject_cast<ChatView*>(window_->viewOfType(QStringLiteral("chat")));
    QVERIFY(chat);
    auto* kv = window_->findChild<QLabel*>(QStringLiteral("kvBits"));
    QTRY_VERIFY_WITH_TIMEOUT(chat->running(), 60000);
    QTRY_VERIFY_WITH_TIMEOUT(!chat->running(), 60000);
    for (int i = 0; i < chat->columnCount(); ++i) QCOMPARE(chat->column(i)->state(), ChatColumn::State::Done);
    QVERIFY2(kv->toolTip().startsWith(QStringLiteral("Measured")), qPrintable(kv->toolTip()));
    QVERIFY2(!kv->text().contains(QStringLiteral("est.")), qPrintable(kv->text()));
    auto entry = workbench_->variantEntry(workbench_->selection().selection().variantB);
    entry->kv = QStringLiteral("kivi:bits=4,group_size=32,residual_length=64");
    workbench_->changeVariant(*entry);
    QTRY_VERIFY_WITH_TIMEOUT(kv->text().contains(QStringLiteral("est.")), 10000);

    // Not a second time, and not in a session of the user's own.
    QSignalSpy sent(chat, &ChatView::sendRequested);
    QTemporaryDir folder;
    const QString path = folder.filePath(QStringLiteral("own.qsession"));
    QVERIFY(window_->saveSession(path));
    QVERIFY(window_->openPath(path));
    QVERIFY(!window_->findChild<SampleStart*>() || !window_->findChild<SampleStart*>()->isActive());
    QTRY_VERIFY_WITH_TIMEOUT(!workbench_->jobs().busy(), 60000);
    QCOMPARE(sent.count(), 0);
  }

  void aWindowBecomesTheResidualLength() {
    auto* view = qobject_cast<LocalityView*>(window_->viewOfType(QStringLiteral("attention")));
    QVERIFY(view);
    const QString id = workbench_->selection().selection().variantB, before = workbench_->variantEntry(id)->kv;
    const auto variants = workbench_->session().variants;
    const auto length = [&] {
      const QString shown = workbench_->variantEntry(workbench_->selection().selection().variantB)->kv;
      return std::get<int>(parse_kv_setup(shown.toStdString())->params["residual_length"]);
    };
    Q_EMIT view->windowApplied(100);
    QCOMPARE(length(), 96);  // a multiple of the group of 32
    QCOMPARE(workbench_->session().variants.size(), variants.size() + 1);
    Q_EMIT view->windowApplied(1);
    QCOMPARE(length(), 32);
    QCOMPARE(workbench_->variantEntry(id)->kv, before);
    // The same again finds the plan that there is.
    const qsizetype made = workbench_->session().variants.size();
    Q_EMIT view->windowApplied(96);
    QCOMPARE(length(), 96);
    QCOMPARE(workbench_->session().variants.size(), made);
    while (workbench_->session().variants.size() > variants.size()) action("edit.undo")->trigger();
    QCOMPARE(workbench_->session().variants, variants);
  }

  void theStripWrapsBeforeItsListsShrink() {
    ViewBase* view = window_->openView(QStringLiteral("error"));
    QSet<int> rows;
    for (QComboBox* box : view->findChildren<QComboBox*>()) {
      QVERIFY2(box->width() >= box->minimumSizeHint().width(), qPrintable(box->objectName()));
      QVERIFY(view->rect().contains(QRect(box->mapTo(view, QPoint()), box->size())));
      rows.insert(box->mapTo(view, box->rect().center()).y());
    }
    QVERIFY(rows.size() >= 2);
    auto* hint = window_->findChild<QLabel*>(QStringLiteral("hint"));
    QVERIFY(hint->height() < 2 * hint->fontMetrics().height());
    QVERIFY(hint->toolTip().contains(QStringLiteral("KIVI")));
  }

  void everyActionIsInAMenuAndSaysWhatItDoes() {
    QSet<QAction*> in_menus;
    QList<QMenu*> menus = window_->menuBar()->findChildren<QMenu*>();
    for (QMenu* menu : menus) {
      for (QAction* item : menu->actions()) in_menus.insert(item);
    }
    QHash<QString, QString> keys;
    for (const ActionSpec& spec : window_->actions().specs()) {
      QAction* item = window_->actions().action(spec.id);
      QVERIFY2(in_menus.contains(item), qPrintable(spec.id));
      QVERIFY2(!item->toolTip().isEmpty(), qPrintable(spec.id));
      for (const QKeySequence& key : item->shortcuts()) {
        const QString text = key.toString();
        QVERIFY2(!keys.contains(text),
                 qPrintable(text + QStringLiteral(": ") + spec.id + QStringLiteral(" and ") + keys.value(text)));
        keys.insert(text, spec.id);
      }
      if (!item->isEnabled()) QVERIFY2(item->toolTip() != item->text(), qPrintable(spec.id));
    }
    for (const char* needed : {"Ctrl+N",
                               "Ctrl+O",
                               "Ctrl+S",
                               "Ctrl+Shift+S",
                               "Ctrl+E",
                               "Ctrl+W",
                               "Ctrl+Q",
                               "Ctrl+Z",
                               "Ctrl+Shift+Z",
                               "Ctrl+Shift+C",
                               "Ctrl+C",
                               "Ctrl+Alt+C",
                               "Ctrl+F",
                               "Ctrl+,",
                               "F",
                               "Ctrl++",
                               "Ctrl+-",
                               "Ctrl+0",
                               "L",
                               "Ctrl+L",
                               "Ctrl+Shift+L",
                               "F8",
                               "F11",
                               "Alt+Return",
                               "Ctrl+Shift+K",
                               "Ctrl+R",
                               "1",
                               "2",
                               "3",
                               "4",
                               "B",
                               "X",
                               "Ctrl+.",
                               "Ctrl+Shift+G",
                               "Alt+1",
                               "Alt+9",
                               "Ctrl+Tab",
                               "F1",
                               "Shift+F1",
                               "Ctrl+Shift+P",
                               "Ctrl+K",
                               "F6",
                               "Shift+F6"}) {
      QVERIFY2(keys.contains(QKeySequence(QLatin1String(needed)).toString()), needed);
    }
  }

  void tabsAreReachedByNumberAndInTurn() {
    const QList<ViewBase*> views = window_->area().views();
    QTest::keyClick(window_.get(), Qt::Key_3, Qt::AltModifier);
    QCOMPARE(window_->area().activeView(), views[2]);
    action("window.next")->trigger();
    QCOMPARE(window_->area().activeView(), views[3]);
    action("window.previous")->trigger();
    QCOMPARE(window_->area().activeView(), views[2]);
  }

  void viewsSplitAndComeTogetherAgain() {
    const qsizetype count = window_->area().views().size();
    ViewBase* view = window_->area().activeView();
    action("window.split_right")->trigger();
    QVERIFY(window_->area().placeOf(view) != QPoint(0, 0));
    QCOMPARE(window_->area().views().size(), count);
    action("window.join")->trigger();
    QCOMPARE(window_->area().placeOf(view), QPoint(0, 0));
    action("file.close")->trigger();
    QCOMPARE(window_->area().views().size(), count - 1);
    action("edit.undo")->trigger();
    QCOMPARE(window_->area().views().size(), count);
  }

  void singleLettersStayInTextEdits() {
    QLineEdit* name = window_->findChild<InspectorDock*>()->findChild<QLineEdit*>(QStringLiteral("variantName"));
    QVERIFY(name);
    QTRY_VERIFY(name->isEnabled());
    const Selection before = workbench_->selection().selection();
    name->setFocus();
    name->selectAll();
    QTest::keyClicks(name, QStringLiteral("x1FLB"));
    QCOMPARE(name->text(), QStringLiteral("x1FLB"));
    QVERIFY(workbench_->selection().selection() == before);
  }

  void thePaletteFindsCommandsLayersAndTensors() {
    CommandPalette& palette = window_->commands();
    QTest::keyClick(window_.get(), Qt::Key_P, Qt::ControlModifier | Qt::ShiftModifier);
    QTRY_VERIFY(palette.isVisible());
    auto* edit = palette.findChild<QLineEdit*>(QStringLiteral("paletteEdit"));
    auto* list = palette.findChild<QListWidget*>(QStringLiteral("paletteList"));
    QTest::keyClicks(edit, QStringLiteral("swap"));
    QVERIFY(list->item(0)->text().contains(QStringLiteral("Swap A and B")));
    const QString b = workbench_->selection().selection().variantB;
    QTest::keyClick(edit, Qt::Key_Return);
    QTRY_COMPARE(workbench_->selection().selection().variantA, b);

    palette.open(QStringLiteral("#3"));
    QTest::keyClick(edit, Qt::Key_Return);
    QTRY_COMPARE(workbench_->selection().selection().layer, 3);
    palette.open(QStringLiteral("@val"));
    QTest::keyClick(edit, Qt::Key_Return);
    QTRY_COMPARE(workbench_->selection().selection().tensor, QStringLiteral("value"));
    palette.open(QStringLiteral(":17"));
    QTest::keyClick(edit, Qt::Key_Return);
    QTRY_COMPARE(workbench_->selection().selection().tokenBegin, 17);
    palette.open(QStringLiteral("qqqzzz"));
    QTest::keyClick(edit, Qt::Key_Return);
    QVERIFY(palette.isVisible());
    QTest::keyClick(edit, Qt::Key_Escape);
    QTRY_VERIFY(!palette.isVisible());
  }

  void aKeyThatIsTakenIsNotAssigned() {
    PreferencesDialog dialog(window_->actions(), window_.get());
    dialog.selectAction(QStringLiteral("view.fit"));
    QVERIFY(!dialog.assign(QKeySequence(QStringLiteral("Ctrl+S"))));
    QVERIFY(dialog.notice().contains(QStringLiteral("Save")));
    QVERIFY(dialog.assign(QKeySequence(QStringLiteral("Ctrl+Alt+F"))));
    QCOMPARE(action("view.fit")->shortcut(), QKeySequence(QStringLiteral("Ctrl+Alt+F")));
    QVERIFY(dialog.assign(QKeySequence(QStringLiteral("F"))));
  }

  void themesChangeThePaletteAndBack() {
    const QColor light = QApplication::palette().color(QPalette::Window);
    for (const char* id : {"dark", "contrast", "light"}) {
      action((QByteArray("view.theme.") + id).constData())->trigger();
      QVERIFY(action((QByteArray("view.theme.") + id).constData())->isChecked());
      const QPalette palette = QApplication::palette();
      QVERIFY(qAbs(palette.color(QPalette::Text).lightness() - palette.color(QPalette::Base).lightness()) > 120);
    }
    QCOMPARE(QApplication::palette().color(QPalette::Window), light);
  }

  void layoutsNeverLeaveAnEmptyWindow() {
    for (const char* name : {"present", "chat", "compare", "explore"}) {
      window_->applyLayout(QLatin1String(name));
      QVERIFY(window_->area().isVisible());
      QVERIFY(!window_->area().views().isEmpty());
    }
    for (QDockWidget* dock : window_->findChildren<QDockWidget*>()) QVERIFY(!dock->isHidden());
  }

  void panesAreCycledByKey() {
    window_->activateWindow();
    window_->area().activate(window_->area().activeView());
    QSet<QString> seen;
    for (int i = 0; i < 8; ++i) {
      action("window.pane_next")->trigger();
      for (QWidget* widget = QApplication::focusWidget(); widget; widget = widget->parentWidget()) {
        if (qobject_cast<QDockWidget*>(widget) || widget == &window_->area()) seen.insert(widget->objectName());
      }
    }
    QVERIFY2(seen.size() >= 3, qPrintable(QStringList(seen.values()).join(QLatin1Char(' '))));
  }

  void aDroppedSessionIsOpened() {
    QTemporaryDir folder;
    SessionState state;
    state.title = QStringLiteral("dropped");
    const QString path = folder.filePath(QStringLiteral("s.qsession"));
    write_session(path, state);
    drop(path);
    QCOMPARE(workbench_->session().title, QStringLiteral("dropped"));
    QCOMPARE(workbench_->document().path(), path);
  }

  void aDroppedModelFolderIsAdded() {
    const qsizetype before = workbench_->session().models.size();
    drop(QStringLiteral(QS_TEST_DATA "/models/stories260K-hf"));
    QTRY_COMPARE_WITH_TIMEOUT(workbench_->session().models.size(), before + 1, 10000);
    QVERIFY(!workbench_->session().models.last().fingerprint.isEmpty());
  }

  void wrongFilesKeepWhatIsOpen_data() {
    QTest::addColumn<QByteArray>("content");
    QTest::newRow("empty") << QByteArray();
    QTest::newRow("truncated session") << session_to_json({}).left(100);
    QTest::newRow("session of the future") << session_to_json({}).replace("\"version\": 1", "\"version\": 9");
    QTest::newRow("text") << QByteArray("hello");
    QTest::newRow("broken HDF5") << QByteArray("\x89HDF\r\n\x1a\n and then nothing", 26);
  }
  void wrongFilesKeepWhatIsOpen() {
    QFETCH(QByteArray, content);
    QTemporaryDir folder;
    QFile file(folder.filePath(QStringLiteral("bad.qsession")));
    QVERIFY(file.open(QIODevice::WriteOnly));
    file.write(content);
    file.close();
    const SessionState before = workbench_->session();
    window_->openPath(file.fileName());
    QTRY_VERIFY_WITH_TIMEOUT(window_->bannerText().contains(QStringLiteral("bad.qsession")), 30000);
    QCOMPARE(workbench_->session().title, before.title);
    QVERIFY(workbench_->session().models == before.models);
    QVERIFY(workbench_->session().captures == before.captures);
    QVERIFY(!window_->openPath(folder.filePath(QStringLiteral("missing.h5"))));
    QVERIFY(window_->bannerText().contains(QStringLiteral("missing.h5")));
  }

  void savedSessionsOpenAsTheyWere() {
    QTemporaryDir folder;
    window_->area().activate(window_->area().views()[1]);
    action("window.split_right")->trigger();
    workbench_->selection().edit([](Selection& s) { s.layer = 4; });
    QTRY_COMPARE(workbench_->session().selection.layer, 4);
    const QString path = folder.filePath(QStringLiteral("mine.qsession"));
    QVERIFY(window_->saveSession(path));
    QFile first(path);
    QVERIFY(first.open(QIODevice::ReadOnly));
    const QByteArray bytes = first.readAll();
    QVERIFY(window_->openSample());
    QVERIFY(window_->openPath(path));
    QCOMPARE(workbench_->selection().selection().layer, 4);
    QVERIFY(window_->area().placeOf(window_->area().views().last()) != QPoint(0, 0));
    const QString again = folder.filePath(QStringLiteral("again.qsession"));
    QVERIFY(window_->saveSession(again));
    QFile second(again);
    QVERIFY(second.open(QIODevice::ReadOnly));
    QCOMPARE(second.readAll(), bytes);
  }

  void undoAndRedoSurviveARandomUser() {
    QRandomGenerator random(5);
    for (int round = 0; round < 200; ++round) {
      switch (random.bounded(8)) {
        case 0:
          action("edit.undo")->trigger();
          break;
        case 1:
          action("edit.redo")->trigger();
          break;
        case 2:
          action("window.split_right")->trigger();
          break;
        case 3:
          action("window.join")->trigger();
          break;
        case 4:
          if (window_->area().views().size() > 2) action("file.close")->trigger();
          break;
        case 5:
          window_->openView(random.bounded(2) ? QStringLiteral("error") : QStringLiteral("outliers"));
          break;
        case 6: {
          auto entry = workbench_->session().variants[random.bounded(int(workbench_->session().variants.size()))];
          entry.kv = random.bounded(2) ? QStringLiteral("kivi:k_bits=4,v_bits=4") : QString();
          workbench_->changeVariant(entry);
          break;
        }
        default:
          workbench_->document().edit(QStringLiteral("pin"), [&](SessionState& s) {
            s.pins << PinEntry{QStringLiteral("error"), QString::number(round), {}};
          });
      }
      if (round % 10 == 0) QApplication::processEvents();
    }
    while (workbench_->document().canUndo()) action("edit.undo")->trigger();
    QVERIFY(workbench_->session().pins.isEmpty());
    QVERIFY(window_->area().views().size() >= 5);
  }

  void everyWidgetThatTakesFocusHasAName() {
    QStringList unnamed;
    for (QWidget* widget : window_->findChildren<QWidget*>()) {
      if (!(widget->focusPolicy() & Qt::TabFocus) || !widget->isVisibleTo(window_.get())) continue;
      if (widget->objectName().startsWith(QLatin1String("qt_"))) continue;  // parts of Qt's own widgets
      QString name = widget->accessibleName();
      if (auto* button = qobject_cast<QAbstractButton*>(widget); button && name.isEmpty()) name = button->text();
      if (name.isEmpty())
        unnamed << QString::fromLatin1(widget->metaObject()->className()) + QLatin1Char(' ') + widget->objectName() +
                       QStringLiteral(" in ") +
                       (widget->parentWidget() ? widget->parentWidget()->objectName() : QString());
    }
    QVERIFY2(unnamed.isEmpty(), qPrintable(unnamed.join(QStringLiteral("; "))));
  }

  void aNewSessionShowsTheWayIn() {
    action("file.new")->trigger();
    QWidget* welcome = window_->findChild<QWidget*>(QStringLiteral("welcome"));
    QVERIFY(welcome->isVisible());
    QTest::mouseClick(welcome->findChild<QAbstractButton*>(QStringLiteral("welcome.help.sample")), Qt::LeftButton);
    QTRY_VERIFY(!welcome->isVisible());
    QCOMPARE(workbench_->session().models.size(), 2);
  }
};

QTEST_MAIN(TestMainWindow)
#include "tst_main_window.moc"
