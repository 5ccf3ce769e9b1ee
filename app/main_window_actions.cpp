// The table of actions. Every command of the window stands here once.

#include <QAbstractButton>
#include <QApplication>
#include <QClipboard>
#include <QComboBox>
#include <QDesktopServices>
#include <QDialog>
#include <QDialogButtonBox>
#include <QKeySequence>
#include <QTableView>
#include <QTextBrowser>
#include <QVBoxLayout>
#include <QWhatsThis>

#include "app/about_text.h"
#include "app/actions.h"
#include "app/command_palette.h"
#include "app/docks/inspector_dock.h"
#include "app/docks/project_dock.h"
#include "app/docks/table_docks.h"
#include "app/main_window.h"
#include "app/preferences_dialog.h"
#include "app/settings.h"
#include "app/view_area.h"
#include "app/view_factory.h"
#include "app/workbench.h"
#include "backend/types/error.h"
#include "sessions/session_document.h"
#include "widgets/figure_export.h"
#include "widgets/models/log_model.h"
#include "widgets/view_base.h"
#include "widgets/views/weights_view.h"

namespace qs {
namespace {
QList<QKeySequence> keys(QKeySequence::StandardKey standard, const char* fallback) {
  // The documented key first; the platform's own beside it.
  QList<QKeySequence> result{QKeySequence(QLatin1String(fallback))};
  const QList<QKeySequence> known = QKeySequence::keyBindings(standard);
  if (!known.isEmpty() && !result.contains(known.first())) result << known.first();
  return result;
}
QList<QKeySequence> keys(const char* first, const char* second = nullptr, const char* third = nullptr) {
  QList<QKeySequence> result;
  for (const char* key : {first, second, third}) {
    if (key) result << QKeySequence(QLatin1String(key));
  }
  return result;
}
}  // namespace

void MainWindow::buildActions() {
  buildFileActions();
  buildViewActions();
  buildWorkActions();
  buildWindowActions();
  commands_ = new CommandPalette(*actions_, this);
  SelectionHub& hub = workbench_.selection();
  commands_->addSource(QLatin1Char('@'), tr("Tensors"), [&hub](const QString& query) {
    QList<PaletteEntry> entries;
    for (const char* name : {"key", "key_pre_rope", "value"}) {
      const QString text = QLatin1String(name);
      if (CommandPalette::score(query, text) < 0) continue;
      entries.append(
          {tr("Tensor %1").arg(text), {}, [&hub, text] { hub.edit([&](Selection& s) { s.tensor = text; }); }});
    }
    return entries;
  });
  const auto number_source = [&hub](const QString& label, std::function<void(Selection&, int)> set) {
    return [&hub, label, set](const QString& query) {
      QList<PaletteEntry> entries;
      bool ok = false;
      const int number = query.toInt(&ok);
      if (ok && number >= 0) {
        entries.append(
            {label.arg(number), {}, [&hub, set, number] { hub.edit([&](Selection& s) { set(s, number); }); }});
      } else if (query.isEmpty()) {
        for (int i = 0; i < 32; ++i)
          entries.append({label.arg(i), {}, [&hub, set, i] { hub.edit([&](Selection& s) { set(s, i); }); }});
      }
      return entries;
    };
  };
  commands_->addSource(QLatin1Char('#'), tr("Layers"),
                       number_source(tr("Layer %1"), [](Selection& s, int layer) { s.layer = layer; }));
  commands_->addSource(QLatin1Char(':'), tr("Tokens"), number_source(tr("Token %1"), [](Selection& s, int token) {
                         s.tokenBegin = token;
                         s.tokenEnd = token + 1;
                       }));
  commands_->addSource(QLatin1Char('>'), tr("Variants"), [this, &hub](const QString& query) {
    QList<PaletteEntry> entries;
    for (const VariantEntry& variant : workbench_.session().variants) {
      if (CommandPalette::score(query, variant.name) < 0) continue;
      entries.append({tr("%1 as B").arg(variant.name), variant.kv + variant.weights,
                      [&hub, id = variant.id] { hub.edit([&](Selection& s) { s.variantB = id; }); }});
    }
    return entries;
  });
}

void MainWindow::buildFileActions() {
  const QString file = tr("File"), edit = tr("Edit");
  const auto add = [this](const ActionSpec& spec, std::function<void()> run) {
    return actions_->add(spec, std::move(run));
  };
  add({"file.new", file, tr("&New Session"), tr("Close this session and begin an empty one"),
       keys(QKeySequence::New, "Ctrl+N")},
      [this] {
        if (maySaveFirst()) workbench_.newSession();
      });
  add({"file.open", file, tr("&Open..."), tr("Open a session, capture, results or llama2.c file"),
       keys(QKeySequence::Open, "Ctrl+O")},
      [this] { openDialog(); });
  add({"file.open_folder", file, tr("Open &Model..."),
       tr("Choose a model: hub cache, folder, GGUF or llama2.c file, with its memory forecast"), keys("Ctrl+Shift+O")},
      [this] { openModelDialog(); });
  add({"file.save", file, tr("-&Save"), tr("Save the session"), keys(QKeySequence::Save, "Ctrl+S")}, [this] {
    if (workbench_.document().path().isEmpty()) return saveAs();
    saveSession(workbench_.document().path());
  });
  add({"file.save_as", file, tr("Save &As..."), tr("Save the session under another name"), keys("Ctrl+Shift+S")},
      [this] { saveAs(); });
  add({"file.import", file, tr("-&Import HDF5..."), tr("Add a capture that was made elsewhere"), {}},
      [this] { openDialog(); });
  add({"file.export_view", file, tr("-&Export View..."), tr("The active view as SVG, PDF, PNG, CSV or LaTeX"),
       keys("Ctrl+E")},
      [this] { exportDialog(false); });
  add({"file.export_data", file, tr("Export &Data..."), tr("The numbers behind the active view as CSV or LaTeX"), {}},
      [this] { exportDialog(true); });
  add({"file.export_report",
       file,
       tr("Export Re&port..."),
       tr("All open views and their provenance as one HTML page"),
       {}},
      [this] { exportReport({}); });
  add({"file.reproduce",
       file,
       tr("Reproduce as &Command..."),
       tr("The command line that makes the active view's numbers"),
       {}},
      [this] {
        ViewBase* view = area_->activeView();
        if (!view) return;
        const QString session =
            workbench_.document().path().isEmpty() ? QStringLiteral("session.qsession") : workbench_.document().path();
        QStringList lines;
        if (!view->provenance().command.isEmpty()) lines << view->provenance().command;
        lines << QStringLiteral("quantoscope figure '%1' --view %2 -o %2.pdf").arg(session, view->viewId());
        QApplication::clipboard()->setText(lines.join(QLatin1Char('\n')));
        showText(tr("Reproduce as command (copied)"),
                 QStringLiteral("<pre>%1</pre>").arg(lines.join(QLatin1Char('\n')).toHtmlEscaped()));
      });
  add({"file.close", file, tr("-&Close View"), tr("Close the active view; Undo brings it back"),
       keys(QKeySequence::Close, "Ctrl+W")},
      [this] {
        if (area_->activeView()) area_->closeView(area_->activeView());
      });
  add({"file.quit", file, tr("&Quit"), tr("Leave Quantoscope"), keys("Ctrl+Q"), false, QAction::QuitRole},
      [this] { close(); });

  add({"edit.undo", edit, tr("&Undo"), tr("Take back the last change of parameters, pins or view settings"),
       keys(QKeySequence::Undo, "Ctrl+Z")},
      [this] { workbench_.document().undo(); });
  add({"edit.redo", edit, tr("&Redo"), tr("Do again what was undone"), keys("Ctrl+Shift+Z", "Ctrl+Y")},
      [this] { workbench_.document().redo(); });
  add({"edit.copy_image", edit, tr("-Copy &Image"), tr("The active view to the clipboard, as a picture"),
       keys("Ctrl+Shift+C")},
      [this] {
        if (area_->activeView()) copy_figure(*area_->activeView());
      });
  add({"edit.copy_data", edit, tr("Copy &Data"),
       tr("The numbers of the active view, or the cells chosen in the data table"), keys(QKeySequence::Copy, "Ctrl+C")},
      [this] {
        if (table_->isAncestorOf(QApplication::focusWidget())) {
          QApplication::clipboard()->setText(table_->selectionAsText());
        } else if (area_->activeView()) {
          copy_data(*area_->activeView());
        }
      });
  add({"edit.copy_path", edit, tr("Copy Dataset &Path"), tr("File and dataset of the selected tensor"),
       keys("Ctrl+Alt+C")},
      [this] {
        const Selection& s = workbench_.selection().selection();
        const auto capture = workbench_.captureEntry(s.captureA);
        if (!capture) return;
        QApplication::clipboard()->setText(QStringLiteral("%1:/layers/%2/%3")
                                               .arg(workbench_.resolvePath(capture->path))
                                               .arg(s.layer, 3, 10, QLatin1Char('0'))
                                               .arg(s.tensor));
      });
  add({"edit.find", edit, tr("-&Find Tensor..."), tr("Choose a tensor by typing"), keys(QKeySequence::Find, "Ctrl+F")},
      [this] { commands_->open(QStringLiteral("@")); });
  add({"edit.preferences", edit, tr("Pr&eferences..."), tr("Theme and keyboard shortcuts"), keys("Ctrl+,"), false,
       QAction::PreferencesRole},
      [this] {
        PreferencesDialog dialog(*actions_, this);
        connect(&dialog, &PreferencesDialog::themeChosen, this, &MainWindow::setTheme);
        dialog.exec();
      });
}

void MainWindow::buildViewActions() {
  const QString menu = tr("View");
  const auto add = [this](const ActionSpec& spec, std::function<void()> run) {
    return actions_->add(spec, std::move(run));
  };
  const auto with_view = [this](auto run) {
    return [this, run] {
      if (ViewBase* view = area_->activeView()) run(*view);
    };
  };
  add({"view.fit", menu, tr("&Fit"), tr("Show everything"), keys("F")},
      with_view([](ViewBase& view) { view.fitView(); }));
  add({"view.zoom_in",
       menu,
       tr("Zoom &In"),
       {},
       {QKeySequence(QStringLiteral("Ctrl++")), QKeySequence(QStringLiteral("Ctrl+="))}},
      with_view([](ViewBase& view) { view.zoomBy(1.25); }));
  add({"view.zoom_out", menu, tr("Zoom &Out"), {}, keys("Ctrl+-")},
      with_view([](ViewBase& view) { view.zoomBy(0.8); }));
  add({"view.actual_size", menu, tr("&Actual Size"), tr("Undo all zooming of the active view"), keys("Ctrl+0")},
      with_view([](ViewBase& view) { view.fitView(); }));
  add({"view.log", menu, tr("-&Log Scale"), tr("Linear or logarithmic colours and axes of the active view"), keys("L"),
       true},
      with_view(
          [this](ViewBase& view) { view.setLogScale(actions_->action(QStringLiteral("view.log"))->isChecked()); }));
  const QStringList maps = {tr("&Viridis"), tr("&Cividis"), tr("&Grey")};
  for (int map = 0; map < maps.size(); ++map) {
    add({QStringLiteral("view.map%1").arg(map + 1),
         menu + QStringLiteral("/") + tr("Colour Map"),
         maps[map],
         tr("Colours of unsigned values"),
         {}},
        with_view([this, map](ViewBase& view) {
          auto* box = view.findChild<QComboBox*>(QStringLiteral("colorMap"));
          if (!box) return showBanner(tr("%1 has no colour map to choose.").arg(view.title()), {}, false);
          box->setCurrentIndex(map);
          Q_EMIT box->activated(map);
        }));
  }
  add({"view.lock_scale", menu, tr("Loc&k Scale"), tr("Keep the colour range of the active view"), keys("Ctrl+L")},
      with_view([this](ViewBase& view) {
        // The compare strip of a heatmap has the lock; other views have no shared colour range.
        if (auto* lock = view.findChild<QAbstractButton*>(QStringLiteral("lockScale"))) {
          lock->click();
        } else {
          showBanner(tr("%1 has no colour range to lock.").arg(view.title()), {}, false);
        }
      }));
  add({"view.link", menu, tr("Lin&k View"), tr("The active view follows the shared selection"), keys("Ctrl+Shift+L"),
       true},
      with_view(
          [this](ViewBase& view) { view.setLinked(actions_->action(QStringLiteral("view.link"))->isChecked()); }));
  add({"view.table", menu, tr("Data &Table"), tr("The numbers of the active view as a table"), keys("F8")}, [this] {
    const bool show = !table_->isVisible() || table_->visibleRegion().isEmpty();
    table_->setVisible(show);
    if (show) {
      table_->raise();
      table_->table()->setFocus();
    }
  });
  add({"view.retry", menu, tr("-&Retry"), tr("Compute the active view again"), keys("F5")},
      with_view([](ViewBase& view) { Q_EMIT view.actionRequested(QStringLiteral("view.retry")); }));
  add({"view.pin", menu, tr("&Pin Value"), tr("Pin the value under the data cursor"), {}},
      [this] { sendKeyToView(Qt::Key_P); });
  add({"view.box_zoom", menu, tr("&Box Zoom"), tr("Drag a rectangle to zoom into"), {}},
      [this] { sendKeyToView(Qt::Key_R); });
  const QList<std::pair<Theme, QString>> themes = {{Theme::System, tr("Follow &System")},
                                                   {Theme::Light, tr("&Light")},
                                                   {Theme::Dark, tr("&Dark")},
                                                   {Theme::HighContrast, tr("&High Contrast")}};
  for (const auto& [theme, text] : themes) {
    add({QStringLiteral("view.theme.") + theme_id(theme),
         tr("View") + QStringLiteral("/") + tr("Theme"),
         text,
         {},
         {},
         true},
        [this, theme = theme] { setTheme(theme); });
  }
  add({"view.fullscreen", menu, tr("F&ull Screen"), {}, keys(QKeySequence::FullScreen, "F11"), true},
      [this] { setWindowState(windowState() ^ Qt::WindowFullScreen); });
}

void MainWindow::buildWorkActions() {
  const auto add = [this](const ActionSpec& spec, std::function<void()> run) {
    return actions_->add(spec, std::move(run));
  };
  const auto off = [this](const char* id, const QString& why) {
    actions_->setAvailable(QLatin1String(id), false, why);
  };
  const QString model = tr("Model"), capture = tr("Capture"), quantize = tr("Quantize"), compare = tr("Compare"),
                jobs = tr("Jobs");
  add({"model.load", model, tr("&Load..."), tr("Choose a model, with its memory forecast"), {}},
      [this] { openModelDialog(); });
  add({"model.stop", model, tr("&Stop Loading"), tr("Cancel everything that is queued or running"), {}},
      [this] { workbench_.jobs().cancelAll(); });
  add({"model.unload",
       model,
       tr("&Unload"),
       tr("Free the memory of models and variants; they are loaded again when needed"),
       {}},
      [this] { workbench_.unloadModels(); });
  add({"model.forecast", model, tr("-&Memory Forecast"), tr("What the model will need: weights, cache, scratch"), {}},
      [this] { openView(QStringLiteral("model")); });
  add({"model.properties", model, tr("&Properties"), tr("Architecture and sizes of the model"), keys("Alt+Return")},
      [this] { openView(QStringLiteral("model")); });

  add({"capture.kv", capture, tr("Capture &KV..."),
       tr("Run a text through the model and keep keys, values and statistics"), keys("Ctrl+Shift+K")},
      [this] { captureDialog(false, false); });
  add({"capture.weights", capture, tr("Capture &Weights..."), tr("The same, with the weights of the model"), {}},
      [this] { captureDialog(true, false); });
  add({"capture.taps", capture, tr("&Tap Points..."), tr("Choose what a capture keeps"), {}},
      [this] { captureDialog(false, true); });
  add({"capture.verify", capture, tr("-&Verify File"), tr("Read every dataset of the selected capture"), {}},
      [this] { verifyCapture(); });

  add({"quantize.new", quantize, tr("&New Plan..."), tr("A method with its parameters on a model"),
       keys("Ctrl+Shift+N")},
      [this] { variantDialog(); });
  add({"quantize.apply", quantize, tr("&Apply"), tr("Make the plan of the tool bar variant B of all views"),
       keys("Ctrl+R")},
      [this] {
        const QString id = plan_combo_->currentData().toString();
        if (!id.isEmpty()) workbench_.selection().edit([&](Selection& s) { s.variantB = id; });
      });
  add({"quantize.change", quantize, tr("&Change Plan..."), tr("Methods and parameters of the chosen plan"), {}},
      [this] { changePlan(false); });
  add({"quantize.overrides",
       quantize,
       tr("Per-layer &Overrides..."),
       tr("The setups of the chosen plan as a table of layers; several can be changed together"),
       {}},
      [this] { overridesDialog(); });
  add({"quantize.auto",
       quantize,
       tr("Choose Per &Layer..."),
       tr("A setup for each layer within a budget of memory, by measured sensitivity"),
       {}},
      [this] { autoDialog(); });
  add({"quantize.self_check",
       quantize,
       tr("&Self-check"),
       tr("What was changed, saturated and left in full precision, in the inspector"),
       {}},
      [this] {
        inspector_->show();
        inspector_->raise();
        if (auto* table = inspector_->findChild<QWidget*>(QStringLiteral("statistics"))) table->setFocus();
      });
  add({"quantize.solve_bits",
       quantize,
       tr("Solve for &Bits..."),
       tr("Set one parameter of the chosen plan so that its effective bits meet a target"),
       {}},
      [this] { changePlan(true); });

  const QStringList modes = {tr("Show &A"), tr("Show &B"), tr("Show A - B"), tr("Show A / B")};
  for (int mode = 0; mode < 4; ++mode) {
    add({QStringLiteral("compare.mode%1").arg(mode + 1),
         compare,
         modes[mode],
         tr("What the active view draws of A and B"),
         {QKeySequence(QString::number(mode + 1))}},
        [this, mode] {
          if (area_->activeView()) area_->activeView()->setCompareMode(mode);
        });
  }
  add({"compare.blink", compare, tr("B&link"), tr("Show A and B in turn"), keys("B")}, [this] {
    if (!area_->activeView()) return;
    if (auto* blink = area_->activeView()->findChild<QAbstractButton*>(QStringLiteral("blink"))) return blink->click();
    sendKeyToView(Qt::Key_B);
  });
  add({"compare.swap", compare, tr("&Swap A and B"), {}, keys("X")}, [this] {
    workbench_.selection().edit([](Selection& s) {
      std::swap(s.variantA, s.variantB);
      std::swap(s.captureA, s.captureB);
      if (s.captureA.isEmpty()) std::swap(s.captureA, s.captureB);
    });
  });
  add({"compare.sweep", compare, tr("-S&weep..."), tr("SmoothQuant's alpha over a grid"), {}},
      [this] { openView(QStringLiteral("alpha")); });
  add({"compare.sensitivity",
       compare,
       tr("Sensi&tivity..."),
       tr("KL divergence of each layer alone under KV setups of your choice"),
       {}},
      [this] { autoDialog(); });
  add({"compare.evaluate", compare, tr("&Evaluate..."), tr("Perplexity, KL divergence and agreement of variants"),
       keys("Ctrl+Shift+E")},
      [this] { evaluateDialog(); });

  add({"jobs.pause", jobs, tr("&Pause"), {}, {}}, {});
  off("jobs.pause", tr("Jobs cannot be paused. A cancelled capture or sweep keeps what it finished."));
  add({"jobs.cancel", jobs, tr("&Cancel"), tr("Cancel the chosen or the running job"), keys("Ctrl+.")}, [this] {
    if (const quint64 id = jobs_->currentJob()) workbench_.jobs().cancel(id);
  });
  add({"jobs.resume", jobs, tr("&Resume"), {}, {}}, {});
  off("jobs.resume", tr("Start the job again: finished points and evaluations are taken from the results file."));
  add({"jobs.retry_layer", jobs, tr("Retry &Layer..."), tr("One layer of a weight plan again with other settings"), {}},
      [this] {
        if (auto* view = qobject_cast<WeightsView*>(openView(QStringLiteral("weights")))) view->askRetryLayer();
      });
  add({"jobs.log", jobs, tr("Show &Log"), tr("What happened, with details"), keys("Ctrl+Shift+G")}, [this] {
    log_->show();
    log_->raise();
    if (auto* table = log_->findChild<QWidget*>(QStringLiteral("logTable"))) table->setFocus();
  });
}

void MainWindow::buildWindowActions() {
  const QString window = tr("Window"), help = tr("Help");
  const auto add = [this](const ActionSpec& spec, std::function<void()> run) {
    return actions_->add(spec, std::move(run));
  };
  add({"window.palette", window, tr("&Command Palette..."), tr("Find any command, tensor, layer or token by typing"),
       keys("Ctrl+Shift+P", "Ctrl+K", "Ctrl+Alt+I")},
      [this] { commands_->open(); });
  for (const ViewType& type : view_types()) {
    add({QStringLiteral("view.add.") + type.id,
         window + QStringLiteral("/") + tr("Open View"),
         type.title,
         type.tip,
         {}},
        [this, id = type.id] { openView(id); });
  }
  for (int number = 0; number < 9; ++number) {
    add({QStringLiteral("window.tab%1").arg(number + 1),
         window + QStringLiteral("/") + tr("Go to View"),
         tr("View &%1").arg(number + 1),
         {},
         {QKeySequence(QStringLiteral("Alt+%1").arg(number + 1))}},
        [this, number] { area_->activateNumber(number); });
  }
  add({"window.next", window, tr("&Next View"), {}, keys("Ctrl+Tab")}, [this] { area_->activateNext(1); });
  add({"window.previous", window, tr("&Previous View"), {}, keys("Ctrl+Shift+Tab")},
      [this] { area_->activateNext(-1); });
  const auto split = [this](Qt::Orientation orientation) {
    if (!area_->split(orientation))
      showBanner(tr("This pane has only one view. Open another one first (Window › Open View)."), {}, false);
  };
  add({"window.split_right", window, tr("-Split &Right"), tr("Move the active view into a new pane on the right"),
       keys("Ctrl+\\")},
      [split] { split(Qt::Horizontal); });
  add({"window.split_down", window, tr("Split &Down"), tr("Move the active view into a new pane below"),
       keys("Ctrl+Shift+\\")},
      [split] { split(Qt::Vertical); });
  add({"window.join", window, tr("&Join Panes"), tr("All views into one pane"), {}}, [this] { area_->joinPanes(); });
  const QList<std::pair<QString, QString>> layouts = {{QStringLiteral("explore"), tr("&Explore")},
                                                      {QStringLiteral("compare"), tr("&Compare")},
                                                      {QStringLiteral("chat"), tr("C&hat")},
                                                      {QStringLiteral("present"), tr("&Present")}};
  for (const auto& [id, text] : layouts) {
    add({QStringLiteral("window.layout.") + id, window + QStringLiteral("/") + tr("Layouts"), text, {}, {}},
        [this, id = id] { applyLayout(id); });
  }
  add({"window.dock_all", window, tr("-Dock &All Panels"), tr("Put every floating panel back"), {}}, [this] {
    for (QDockWidget* dock : findChildren<QDockWidget*>()) {
      dock->setFloating(false);
      dock->show();
    }
  });
  add({"window.reset", window, tr("Rese&t Layout"), tr("Panels and panes as on the first start"), {}},
      [this] { applyLayout(QStringLiteral("explore")); });
  add({"window.pane_next", window, tr("-Next P&ane"), tr("Views, then each panel"), keys("F6")},
      [this] { cyclePanes(1); });
  add({"window.pane_previous", window, tr("Pre&vious Pane"), {}, keys("Shift+F6")}, [this] { cyclePanes(-1); });

  add({"help.contents", help, tr("&Contents"), tr("A short manual"), keys(QKeySequence::HelpContents, "F1")},
      [this] { showText(tr("Contents"), help_text()); });
  add({"help.whats_this", help, tr("&What's This?"), {}, keys("Shift+F1")}, [] { QWhatsThis::enterWhatsThisMode(); });
  add({"help.tutorial", help, tr("&Tutorial"), tr("A walk through the sample session"), {}},
      [this] { showText(tr("Tutorial"), tutorial_text()); });
  add({"help.sample", help, tr("&Sample Session"), tr("Open the bundled sample"), {}}, [this] {
    if (maySaveFirst()) openSample();
  });
  add({"help.keys", help, tr("&Keyboard Map"), tr("All commands with their keys"), {}}, [this] {
    QString rows;
    for (const ActionSpec& spec : actions_->specs()) {
      QStringList texts;
      for (const QKeySequence& key : actions_->action(spec.id)->shortcuts())
        texts << key.toString(QKeySequence::NativeText);
      if (!texts.isEmpty()) {
        rows += QStringLiteral("<tr><td>%1</td><td>%2</td><td>&nbsp;&nbsp;<b>%3</b></td></tr>")
                    .arg(spec.menu.toHtmlEscaped(), actions_->plainText(spec.id).toHtmlEscaped(),
                         texts.join(QStringLiteral(", ")).toHtmlEscaped());
      }
    }
    showText(tr("Keyboard map"), QStringLiteral("<table cellpadding=3>%1</table>%2").arg(rows, view_keys_text()));
  });
  add({"help.diagnostics", help, tr("-Copy &Diagnostics"), tr("Versions and the log, to the clipboard"), {}}, [this] {
    QApplication::clipboard()->setText(diagnostics_text() + QLatin1Char('\n') + log_->model().asText());
    showBanner(tr("Versions and the log are in the clipboard."), {}, false);
  });
  add({"help.about", help, tr("&About Quantoscope"), {}, {}, false, QAction::AboutRole},
      [this] { showText(tr("About Quantoscope"), about_text()); });
}

void MainWindow::runViewAction(const QString& id) {
  if (QAction* action = actions_->action(id)) {
    if (action->isEnabled())
      action->trigger();
    else
      showBanner(action->toolTip(), {}, false);
  }
}

void MainWindow::showText(const QString& title, const QString& html) {
  auto* dialog = new QDialog(this);
  dialog->setAttribute(Qt::WA_DeleteOnClose);
  dialog->setObjectName(QStringLiteral("textDialog"));
  dialog->setWindowTitle(title);
  dialog->resize(720, 560);
  auto* column = new QVBoxLayout(dialog);
  auto* text = new QTextBrowser(dialog);
  text->setObjectName(QStringLiteral("text"));
  text->setAccessibleName(title);
  text->setOpenExternalLinks(true);
  text->setHtml(html);
  column->addWidget(text);
  auto* buttons = new QDialogButtonBox(QDialogButtonBox::Close, dialog);
  column->addWidget(buttons);
  connect(buttons, &QDialogButtonBox::rejected, dialog, &QDialog::close);
  dialog->show();
}

}  // namespace qs
