// Opening, saving, recovery, recent files, drag and drop, and the dialogs that begin work.

#include <QComboBox>
#include <QDateTime>
#include <QDragEnterEvent>
#include <QFileDialog>
#include <QFileInfo>
#include <QMenu>
#include <QMessageBox>
#include <QMimeData>
#include <QPushButton>
#include <cmath>
#include <utility>

#include "app/actions.h"
#include "app/capture_dialog.h"
#include "app/docks/project_dock.h"
#include "app/docks/table_docks.h"
#include "app/main_window.h"
#include "app/open_model_dialog.h"
#include "app/sample_start.h"
#include "app/settings.h"
#include "app/workbench.h"
#include "backend/types/error.h"
#include "sessions/recent_files.h"
#include "sessions/recovery.h"
#include "sessions/session_document.h"
#include "widgets/models/dataset_tree_model.h"
#include "widgets/models/log_model.h"

namespace qs {

bool MainWindow::openPath(const QString& path) {
  const QString file = workbench_.resolvePath(path);
  try {
    switch (detect_file_kind(file)) {
      case FileKind::Missing:
        throw Error(ErrorCode::NotFound, tr("'%1' does not exist.").arg(file).toStdString());
      case FileKind::Unknown:
        throw Error(ErrorCode::BadFormat, tr("'%1' is nothing that can be opened: expected a session, an HDF5 capture, "
                                             "a model folder with config.json, a GGUF or "
                                             "llama2.c file.")
                                              .arg(file)
                                              .toStdString());
      case FileKind::Session:
        if (!maySaveFirst()) return false;
        workbench_.openSession(file);
        break;
      case FileKind::ModelFolder:
        workbench_.addModel(QFileInfo(file).isDir() ? file : QFileInfo(file).absolutePath());
        break;
      case FileKind::ModelFile:
        workbench_.addModel(file);
        break;
      case FileKind::Capture:
        workbench_.addCapture(file);
        break;
      case FileKind::Results:
        workbench_.document().edit(tr("Open results"), [&](SessionState& state) { state.resultsPath = file; });
        openView(QStringLiteral("results"));
        break;
    }
  } catch (const Error& error) {
    showBanner(QString::fromUtf8(error.what()), QString::fromStdString(error.detail()));
    return false;
  }
  add_recent_file(file);
  return true;
}

bool MainWindow::openSample() {
  try {
    workbench_.openSample();
    if (std::exchange(sample_seen_, true)) return true;
    auto* start = new SampleStart(*this);
    connect(start, &SampleStart::filled, this, [this](qint64 ms) {
      log_->model().append(LogLine::Level::Info, tr("Every view filled after %1 ms.").arg(ms));
    });
    return true;
  } catch (const Error& error) {
    showBanner(QString::fromUtf8(error.what()), QString::fromStdString(error.detail()));
    return false;
  }
}

bool MainWindow::saveSession(const QString& path) {
  try {
    workbench_.document().settle([&](SessionState& state) { state.views = currentEntries(); });
    workbench_.saveSession(path);
    if (recovery_) recovery_->drop();
    add_recent_file(path);
    log_->model().append(LogLine::Level::Info, tr("Saved to %1").arg(path));
    return true;
  } catch (const Error& error) {
    showBanner(QString::fromUtf8(error.what()), QString::fromStdString(error.detail()));
    return false;
  }
}

void MainWindow::saveAs() {
  QString path =
      QFileDialog::getSaveFileName(this, tr("Save session"), workbench_.document().path(), tr("Sessions (*.qsession)"));
  if (path.isEmpty()) return;
  if (QFileInfo(path).suffix().isEmpty()) path += QStringLiteral(".qsession");
  saveSession(path);
}

bool MainWindow::maySaveFirst() {
  if (!workbench_.document().isModified() || !isVisible() || property("quiet").toBool()) return true;
  const auto answer = QMessageBox::question(
      this, tr("Save changes?"), tr("The session “%1” has unsaved changes.").arg(workbench_.session().title),
      QMessageBox::Save | QMessageBox::Discard | QMessageBox::Cancel, QMessageBox::Save);
  if (answer == QMessageBox::Cancel) return false;
  if (answer == QMessageBox::Discard) return true;
  if (workbench_.document().path().isEmpty()) {
    saveAs();
    return !workbench_.document().isModified();
  }
  return saveSession(workbench_.document().path());
}

void MainWindow::openDialog() {
  const QString path = QFileDialog::getOpenFileName(
      this, tr("Open"), {},
      tr("Sessions, captures, models (*.qsession *.h5 *.hdf5 *.gguf *.bin *.json);;All files (*)"));
  if (!path.isEmpty()) openPath(path);
}

void MainWindow::openModelDialog() {
  OpenModelDialog dialog(workbench_, this);
  if (dialog.exec() != QDialog::Accepted) return;
  workbench_.addModel(dialog.path(), dialog.dtype());
  add_recent_file(dialog.path());
  openView(QStringLiteral("model"));
}

void MainWindow::fillRecentMenu() {
  recent_menu_->clear();
  const QStringList recent = recent_files();
  for (const QString& path : recent) {
    recent_menu_->addAction(QFileInfo(path).fileName(), this, [this, path] { openPath(path); })->setToolTip(path);
  }
  if (recent.isEmpty()) {
    recent_menu_->addAction(tr("Nothing was opened yet"))->setEnabled(false);
  } else {
    recent_menu_->addSeparator();
    recent_menu_->addAction(tr("Clear this list"), this, [] { clear_recent_files(); });
  }
}

void MainWindow::autosave() {
  if (!recovery_ || !workbench_.document().isModified()) return;
  try {
    recovery_->save(workbench_.session(), workbench_.document().path());
  } catch (const Error& error) {
    log_->model().append(LogLine::Level::Warning, QString::fromUtf8(error.what()));
  }
}

void MainWindow::offerRecovery() {
  if (!recovery_) return;
  QString problem;
  const auto found = recovery_->find(&problem);
  if (!problem.isEmpty()) log_->model().append(LogLine::Level::Warning, problem);
  if (!found) return;
  QMessageBox box(QMessageBox::Question, tr("Recover unsaved work?"),
                  tr("Quantoscope ended without saving “%1”. An automatic save of %2 is there.")
                      .arg(found->state.title, QLocale().toString(QDateTime::fromString(found->savedAt, Qt::ISODate),
                                                                  QLocale::ShortFormat)),
                  QMessageBox::NoButton, this);
  const QPushButton* recover = box.addButton(tr("Recover"), QMessageBox::AcceptRole);
  const QPushButton* drop = box.addButton(tr("Discard"), QMessageBox::DestructiveRole);
  box.addButton(tr("Later"), QMessageBox::RejectRole);
  box.exec();
  if (box.clickedButton() == recover) {
    workbench_.replaceSession(found->state, found->path, true);
    recovery_->discard(*found);
    autosave();
  } else if (box.clickedButton() == drop) {
    recovery_->discard(*found);
  }
}

void MainWindow::dragEnterEvent(QDragEnterEvent* event) {
  if (!event->mimeData()->hasUrls()) return;
  for (const QUrl& url : event->mimeData()->urls()) {
    if (url.isLocalFile()) return event->acceptProposedAction();
  }
}

void MainWindow::dropEvent(QDropEvent* event) {
  event->acceptProposedAction();
  for (const QUrl& url : event->mimeData()->urls()) {
    if (url.isLocalFile()) openPath(url.toLocalFile());
  }
}

QString MainWindow::currentModelId() const {
  const QString chosen = project_->selectedModel();
  if (!chosen.isEmpty()) return chosen;
  const QString id = model_combo_->currentData().toString();
  return !id.isEmpty() || workbench_.session().models.isEmpty() ? id : workbench_.session().models.first().id;
}

void MainWindow::captureDialog(bool weights, bool taps) {
  CaptureDialog dialog(workbench_, currentModelId(), this);
  dialog.setWeights(weights);
  if (taps) dialog.focusTaps();
  if (dialog.exec() != QDialog::Accepted) return;
  CaptureEntry entry{workbench_.freshId(QFileInfo(dialog.filePath()).completeBaseName()), dialog.filePath(),
                     dialog.modelId(), dialog.textPath(), dialog.tokens()};
  workbench_.document().edit(tr("Capture %1").arg(entry.id), [&](SessionState& state) { state.captures << entry; });
  workbench_.selection().edit([&](Selection& s) { s.captureA = entry.id; });
  workbench_.makeCapture(entry.id, true, dialog.taps(), dialog.weights());
}

void MainWindow::verifyCapture() {
  QString id = project_->selectedCapture();
  if (id.isEmpty()) id = workbench_.selection().selection().captureA;
  if (!workbench_.captureEntry(id)) return showBanner(tr("Choose a capture in the project panel first."), {}, false);
  workbench_.jobs().compute(
      tr("Verify %1").arg(id), QStringLiteral("project"), JobLane::Compute,
      [this, id](const JobContext& job) {
        const auto reader = workbench_.openCapture(id, job);
        const CaptureInfo& info = reader->info();
        qint64 values = 0, not_finite = 0, done = 0;
        for (const DatasetInfo& dataset : info.datasets) {
          job.checkpoint(done++, qint64(info.datasets.size()), dataset.path);
          if (dataset.dtype == "utf-8") continue;
          const TensorView tensor = reader->read(dataset.path);
          values += tensor.size();
          for (const float value : tensor.values()) not_finite += !std::isfinite(value);
        }
        return tr("%1: %2 datasets with %L3 values were read; %4 are NaN or infinite; %5.")
            .arg(id)
            .arg(info.datasets.size())
            .arg(values)
            .arg(not_finite)
            .arg(info.complete ? tr("the capture is complete")
                               : tr("the capture was cut off, what was flushed is intact"));
      },
      this,
      [this](const QString& text) {
        log_->model().append(LogLine::Level::Info, text);
        showBanner(text, {}, false);
      },
      [this](const JobStatus& status) {
        if (status.state == JobState::Failed) showBanner(status.message, status.detail);
      });
}

}  // namespace qs
