// The views of the window: made from the session, recorded in it, undone with it, exported.

#include <QAbstractButton>
#include <QApplication>
#include <QBuffer>
#include <QComboBox>
#include <QFileDialog>
#include <QFileInfo>
#include <QKeyEvent>
#include <QLabel>
#include <QSaveFile>
#include <QStackedWidget>
#include <QToolButton>

#include "app/actions.h"
#include "app/command_palette.h"
#include "app/docks/table_docks.h"
#include "app/main_window.h"
#include "app/view_area.h"
#include "app/view_factory.h"
#include "app/welcome.h"
#include "app/workbench.h"
#include "backend/types/error.h"
#include "sessions/session_document.h"
#include "widgets/figure_export.h"
#include "widgets/view_base.h"

namespace qs {
namespace {

const auto kPlace = QStringLiteral("place");

QPoint place_of(const ViewEntry& entry) {
  const QStringList parts = entry.settings.value(kPlace).toString().split(QLatin1Char(':'));
  return {parts.value(0).toInt(), parts.value(1).toInt()};
}

QJsonObject without_place(QJsonObject settings) {
  settings.remove(kPlace);
  return settings;
}

}  // namespace

void MainWindow::rebuildViews() {
  restoring_ = true;
  table_->setView(nullptr);
  area_->clear();
  const SessionState state = workbench_.session();
  for (const ViewEntry& entry : state.views) {
    ViewBase* view = make_view(entry.type, workbench_, area_);
    if (!view) continue;
    adopt(view);
    area_->addView(view, place_of(entry));
    if (!without_place(entry.settings).isEmpty()) view->restoreSettings(without_place(entry.settings));
    view->setLinked(entry.linked);
  }
  const QList<ViewBase*> views = area_->views();
  if (!views.isEmpty()) area_->activate(views[std::clamp<qsizetype>(state.activeView, 0, views.size() - 1)]);
  restoring_ = false;
  workbench_.document().settle([&](SessionState& next) { next.views = currentEntries(); });
  const bool empty = state.models.isEmpty() && state.captures.isEmpty();
  stack_->setCurrentWidget(empty ? static_cast<QWidget*>(welcome_) : area_);
  hint_->setProperty("full", state.notes.section(QLatin1Char('\n'), 0, 0));
  hint_->setToolTip(state.notes);
  elideHint();
  hint_->setVisible(!hint_->text().isEmpty() && !empty);
  activeViewChanged(area_->activeView());
}

void MainWindow::elideHint() {
  const QMargins margins = hint_->contentsMargins();
  const int room = std::max(40, hint_->width() - margins.left() - margins.right());
  const QString full = hint_->property("full").toString(),
                shown = hint_->fontMetrics().elidedText(full, Qt::ElideRight, room);
  hint_->setAccessibleDescription(full);
  if (shown != hint_->text()) hint_->setText(shown);
}

bool MainWindow::eventFilter(QObject* watched, QEvent* event) {
  if (watched == hint_ && (event->type() == QEvent::Resize || event->type() == QEvent::FontChange)) elideHint();
  return QMainWindow::eventFilter(watched, event);
}

void MainWindow::adopt(ViewBase* view) {
  view->setFocusPolicy(Qt::StrongFocus);
  view->setMinimumSize(320, 200);  // less than its controls would like: docks need room on small screens
  // In a narrow pane the strip wraps, so that lists and buttons stay readable.
  for (QToolButton* button : view->findChildren<QToolButton*>()) button->setMinimumWidth(button->sizeHint().width());
  for (QComboBox* box : view->findChildren<QComboBox*>()) box->setMinimumWidth(std::min(96, box->sizeHint().width()));
  for (const ViewType& type : view_types()) {
    if (type.id == view->viewId()) view->setProperty("tabTitle", type.title);
  }
  connect(view, &ViewBase::actionRequested, this, [this](const QString& id) {
    // The view's own presenter answers these two.
    if (id != QLatin1String("view.retry") && id != QLatin1String("view.recompute")) runViewAction(id);
  });
  connect(view, &ViewBase::readoutChanged, readout_, &QLabel::setText);
  connect(view, &ViewBase::pinRequested, this, &MainWindow::addPin);
  connect(view, &ViewBase::settingsChanged, this, [this, view] { viewSettingsChanged(view); });
}

QList<ViewEntry> MainWindow::currentEntries() const {
  QList<ViewEntry> entries;
  for (const ViewBase* view : area_->views()) {
    QJsonObject settings = view->saveSettings();
    const QPoint place = area_->placeOf(view);
    if (!place.isNull()) settings.insert(kPlace, QStringLiteral("%1:%2").arg(place.x()).arg(place.y()));
    entries.append({view->viewId(), view->isLinked(), settings});
  }
  return entries;
}

void MainWindow::viewSettingsChanged(ViewBase* view) {
  if (restoring_) return;
  const QList<ViewEntry> entries = currentEntries();
  workbench_.document().edit(
      tr("Change %1").arg(view->title()), [&](SessionState& state) { state.views = entries; },
      QStringLiteral("view:") + view->viewId());
}

void MainWindow::recordArrangement(const QString& text) {
  if (restoring_) return;
  const QList<ViewEntry> entries = currentEntries();
  workbench_.document().edit(text, [&](SessionState& state) { state.views = entries; });
}

void MainWindow::restoreFromDocument() {
  const QList<ViewEntry> wanted = workbench_.session().views, shown = currentEntries();
  const auto arrangement = [](const QList<ViewEntry>& entries) {
    QStringList result;
    for (const ViewEntry& entry : entries) result << entry.type + entry.settings.value(kPlace).toString();
    return result;
  };
  if (arrangement(wanted) != arrangement(shown)) return rebuildViews();
  restoring_ = true;
  const QList<ViewBase*> views = area_->views();
  for (qsizetype i = 0; i < views.size(); ++i) {
    if (wanted[i] == shown[i]) continue;
    views[i]->restoreSettings(without_place(wanted[i].settings));
    views[i]->setLinked(wanted[i].linked);
  }
  restoring_ = false;
}

ViewBase* MainWindow::viewOfType(const QString& type) const {
  for (ViewBase* view : area_->views()) {
    if (view->viewId() == type) return view;
  }
  return nullptr;
}

ViewBase* MainWindow::openView(const QString& type) {
  if (ViewBase* view = viewOfType(type)) {
    area_->activate(view);
    return view;
  }
  ViewBase* view = make_view(type, workbench_, area_);
  if (!view) return nullptr;
  adopt(view);
  area_->addView(view);
  stack_->setCurrentWidget(area_);
  return view;
}

void MainWindow::activeViewChanged(ViewBase* view) {
  table_->setView(view);
  readout_->setText(view && view->state() == ViewState::Ready ? view->accessibleSummary() : tr("Ready"));
  if (!restoring_ && view) {
    const int index = int(area_->views().indexOf(view));
    workbench_.document().note([&](SessionState& state) { state.activeView = index; });
  }
  refreshActions();
}

void MainWindow::refreshActions() {
  const SessionDocument& document = workbench_.document();
  const SessionState& state = document.state();
  ViewBase* view = area_->activeView();
  const QString no_view = tr("Open a view first (Window › Open View).");
  for (const char* id :
       {"file.export_view", "file.export_data",   "file.export_report", "file.reproduce", "file.close",
        "edit.copy_image",  "view.fit",           "view.zoom_in",       "view.zoom_out",  "view.actual_size",
        "view.log",         "view.lock_scale",    "view.link",          "view.retry",     "view.pin",
        "view.box_zoom",    "window.split_right", "window.split_down",  "window.next",    "window.previous",
        "compare.mode1",    "compare.mode2",      "compare.mode3",      "compare.mode4",  "compare.blink"}) {
    actions_->setAvailable(QLatin1String(id), view != nullptr, no_view);
  }
  actions_->setAvailable(QStringLiteral("edit.undo"), document.canUndo(), tr("Nothing was changed yet."));
  actions_->setAvailable(QStringLiteral("edit.redo"), document.canRedo(), tr("Nothing was undone."));
  actions_->action(QStringLiteral("edit.undo"))
      ->setText(document.canUndo() ? tr("&Undo %1").arg(document.undoText()) : tr("&Undo"));
  actions_->action(QStringLiteral("edit.redo"))
      ->setText(document.canRedo() ? tr("&Redo %1").arg(document.redoText()) : tr("&Redo"));
  const bool any_model = !state.models.isEmpty();
  for (const char* id : {"capture.kv", "capture.weights", "capture.taps", "quantize.new", "quantize.auto",
                         "compare.sensitivity", "model.forecast", "model.properties", "model.unload"}) {
    actions_->setAvailable(QLatin1String(id), any_model, tr("Open a model first (Model › Load)."));
  }
  const bool any_capture = !state.captures.isEmpty();
  for (const char* id : {"capture.verify", "edit.copy_path", "quantize.self_check"}) {
    actions_->setAvailable(QLatin1String(id), any_capture, tr("Open or make a capture first (Capture › Capture KV)."));
  }
  const bool any_variant = state.variants.size() > 0;
  for (const char* id : {"quantize.apply", "quantize.change", "quantize.overrides", "quantize.solve_bits",
                         "compare.evaluate", "compare.swap"}) {
    actions_->setAvailable(QLatin1String(id), any_variant, tr("Make a plan first (Quantize › New Plan)."));
  }
  const bool busy = workbench_.jobs().busy();
  for (const char* id : {"jobs.cancel", "model.stop"})
    actions_->setAvailable(QLatin1String(id), busy, tr("Nothing is running."));
  const QList<ViewBase*> views = area_->views();
  for (int i = 0; i < 9; ++i) {
    QAction* action = actions_->action(QStringLiteral("window.tab%1").arg(i + 1));
    const bool there = i < views.size();
    action->setText(there ? tr("&%1 %2").arg(i + 1).arg(views[i]->title()) : tr("View &%1").arg(i + 1));
    actions_->setAvailable(action->objectName(), there, tr("There are only %1 views.").arg(views.size()));
  }
  if (view) {
    actions_->action(QStringLiteral("view.link"))->setChecked(view->isLinked());
  }
  int kv_variants = 0;
  for (const VariantEntry& variant : state.variants) kv_variants += !variant.kv.isEmpty() || !variant.weights.isEmpty();
  welcome_->setProgress(any_model, any_capture, kv_variants >= 2);
  if (stack_->currentWidget() == welcome_ && any_capture) stack_->setCurrentWidget(area_);
}

void MainWindow::sendKeyToView(int key) {
  ViewBase* view = area_->activeView();
  if (!view) return;
  QWidget* target = QApplication::focusWidget();
  if (!target || !(target == view || view->isAncestorOf(target)))
    target = view->focusProxy() ? view->focusProxy() : view;
  QKeyEvent press(QEvent::KeyPress, key, Qt::NoModifier);
  QApplication::sendEvent(target, &press);
}

void MainWindow::addPin(const QString& viewId, const QString& value) {
  const Selection& s = workbench_.selection().selection();
  PinEntry pin{viewId, tr("L%1 %2").arg(s.layer).arg(s.tensor), value, s.layer, s.kvHead, s.channelBegin, s.tokenBegin};
  workbench_.document().edit(tr("Pin %1").arg(pin.text), [&](SessionState& state) { state.pins << pin; });
}

QString MainWindow::exportView(ViewBase& view, const QString& path) {
  try {
    Provenance provenance = view.provenance();
    if (provenance.session.isEmpty()) provenance.session = workbench_.session().title;
    if (provenance.program.isEmpty()) provenance.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
    view.setProvenance(provenance);
    export_figure(view, path);
    return {};
  } catch (const Error& error) {
    return QString::fromUtf8(error.what());
  }
}

void MainWindow::exportDialog(bool data) {
  ViewBase* view = area_->activeView();
  if (!view) return;
  const QString filter = data ? tr("CSV (*.csv);;LaTeX table (*.tex)")
                              : tr("PDF (*.pdf);;SVG (*.svg);;PNG (*.png);;CSV (*.csv);;LaTeX table (*.tex)");
  QString chosen;
  QString path = QFileDialog::getSaveFileName(this, tr("Export %1").arg(view->title()),
                                              view->viewId() + (data ? QStringLiteral(".csv") : QStringLiteral(".pdf")),
                                              filter, &chosen);
  if (path.isEmpty()) return;
  if (QFileInfo(path).suffix().isEmpty())
    path += chosen.section(QStringLiteral("(*"), 1).section(QLatin1Char(')'), 0, 0);
  const QString problem = exportView(*view, path);
  showBanner(problem.isEmpty() ? tr("%1 was exported to %2.").arg(view->title(), path) : problem, {},
             !problem.isEmpty());
}

void MainWindow::exportReport(const QString& given) {
  const QString path =
      given.isEmpty()
          ? QFileDialog::getSaveFileName(this, tr("Export report"), QStringLiteral("report.html"), tr("HTML (*.html)"))
          : given;
  if (path.isEmpty()) return;
  QByteArray html = "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>" +
                    workbench_.session().title.toHtmlEscaped().toUtf8() +
                    "</title><style>body{font-family:sans-serif;max-width:60em;margin:2em "
                    "auto}img{max-width:100%}small{color:#555}</style></head><body><h1>" +
                    workbench_.session().title.toHtmlEscaped().toUtf8() + "</h1><p>" +
                    workbench_.session().notes.toHtmlEscaped().toUtf8() + "</p>";
  for (ViewBase* view : area_->views()) {
    if (view->state() != ViewState::Ready) continue;
    html += "<h2>" + view->title().toHtmlEscaped().toUtf8() + "</h2><p>" +
            view->accessibleSummary().toHtmlEscaped().toUtf8() + "</p><img alt=\"\" src=\"data:image/png;base64," +
            figure_bytes(*view, FigureFormat::Png).toBase64() + "\"><br><small>" +
            view->provenance().line().toHtmlEscaped().toUtf8() + "</small>";
  }
  html += "</body></html>\n";
  QSaveFile file(path);
  const bool ok = file.open(QIODevice::WriteOnly) && file.write(html) == html.size() && file.commit();
  showBanner(ok ? tr("The report was written to %1.").arg(path)
                : tr("The report could not be written to '%1': %2.").arg(path, file.errorString()),
             {}, !ok);
}

}  // namespace qs
