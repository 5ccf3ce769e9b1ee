#include "app/headless.h"

#include <QApplication>
#include <QDialog>
#include <QDir>
#include <QElapsedTimer>
#include <QEventLoop>
#include <QFile>
#include <QTextStream>
#include <QTimer>
#include <utility>

#include "app/actions.h"
#include "app/main_window.h"
#include "app/sample_start.h"
#include "app/theme.h"
#include "app/view_area.h"
#include "app/view_factory.h"
#include "app/workbench.h"
#include "backend/types/error.h"
#include "sessions/session_document.h"
#include "widgets/view_base.h"
#include "widgets/views/alpha_sweep_view.h"
#include "widgets/views/chat_view.h"

namespace qs {
namespace {

constexpr int kPatienceMs = 600'000;

void say(const QString& text) { QTextStream(stdout) << text << Qt::endl; }

/// Failed jobs, collected from the start to the end of a run.
class Failures : public QObject {
 public:
  explicit Failures(JobRunner& jobs) {
    connect(&jobs, &JobRunner::jobChanged, this, [this](const JobStatus& status) {
      if (status.state == JobState::Failed) texts << status.title + QStringLiteral(": ") + status.message;
    });
  }
  QStringList texts;
};

QString bytes_of(const QString& path) { return QLocale::c().formattedDataSize(QFileInfo(path).size()); }

}  // namespace

bool wait_until(const std::function<bool()>& done, int timeout_ms) {
  if (done()) return true;
  QEventLoop loop;
  QTimer poll, limit;
  bool ok = false;
  QObject::connect(&poll, &QTimer::timeout, &loop, [&] {
    if (!done()) return;
    ok = true;
    loop.quit();
  });
  QObject::connect(&limit, &QTimer::timeout, &loop, &QEventLoop::quit);
  limit.setSingleShot(true);
  poll.start(20);
  limit.start(timeout_ms);
  loop.exec();
  return ok;
}

QString fill_view(MainWindow& window, ViewBase& view, int timeout_ms) {
  JobRunner& jobs = window.workbench().jobs();
  const auto settled = [&] {
    return !jobs.busy() && view.state() != ViewState::Loading && view.state() != ViewState::Partial;
  };
  wait_until(settled, timeout_ms);
  if (auto* chat = qobject_cast<ChatView*>(&view)) {
    if (chat->column(0)->state() == ChatColumn::State::Idle) Q_EMIT chat->sendRequested(chat->request());
    if (!wait_until([&] { return !chat->running() && !jobs.busy(); }, timeout_ms))
      return MainWindow::tr("the chat did not end in time.");
  } else if (auto* alpha = qobject_cast<AlphaSweepView*>(&view)) {
    if (alpha->result().schemes.empty()) {
      Q_EMIT alpha->sweepRequested(alpha->modelMode());
      wait_until([&] { return jobs.busy(); }, 2000);
    }
  }
  // Presenters wait a moment for further changes before they begin.
  QElapsedTimer quiet;
  quiet.start();
  wait_until(
      [&] {
        if (!settled()) quiet.restart();
        return quiet.elapsed() > 300;
      },
      timeout_ms);
  if (view.state() == ViewState::Ready) return {};
  return view.stateMessage().isEmpty() ? MainWindow::tr("it did not get ready in time.") : view.stateMessage();
}

int run_headless(const QString& folder) {
  QTextStream err(stderr);
  if (!QDir().mkpath(folder)) {
    err << "The folder '" << folder << "' cannot be made. Check its permissions." << Qt::endl;
    return 1;
  }
  apply_theme(Theme::Light);
  const QDir out(QDir(folder).absolutePath());
  Workbench workbench;
  Failures failures(workbench.jobs());
  MainWindow window(workbench);
  window.setProperty("quiet", true);
  window.resize(1440, 900);
  window.show();
  try {
    workbench.openSample();
    workbench.jobs().cancelAll();
    SessionState state = workbench.session();
    for (int i = 0; i < state.captures.size(); ++i) {
      state.captures[i].path = out.filePath(i == 0 ? QStringLiteral("capture.h5")
                                                   : QStringLiteral("capture-%1.h5").arg(state.captures[i].modelId));
      QFile::remove(state.captures[i].path);
    }
    state.resultsPath = out.filePath(QStringLiteral("results.h5"));
    QFile::remove(state.resultsPath);
    say(QStringLiteral("Session: %1, %2 models, %3 variants")
            .arg(state.title)
            .arg(state.models.size())
            .arg(state.variants.size()));
    workbench.replaceSession(state, {}, true);
    say(QStringLiteral("Capture: %1 tokens of each model").arg(state.captures.first().tokens));
    const auto captured = [&] {
      for (const CaptureEntry& capture : state.captures) {
        if (!QFileInfo::exists(capture.path)) return false;
      }
      return !workbench.jobs().busy();
    };
    if (!wait_until([&] { return captured() || !failures.texts.isEmpty(); }, kPatienceMs) ||
        !failures.texts.isEmpty()) {
      err << "The capture failed. " << failures.texts.join(QLatin1Char('\n')) << Qt::endl;
      return 1;
    }
    for (const CaptureEntry& capture : state.captures)
      say(QStringLiteral("  %1  %2").arg(QFileInfo(capture.path).fileName(), bytes_of(capture.path)));

    QStringList ids;
    for (const VariantEntry& variant : state.variants) {
      if (variant.modelId == state.models.first().id) ids << variant.id;
    }
    workbench.evaluate(ids, 512, 4, {QStringLiteral("ppl"), QStringLiteral("kl"), QStringLiteral("top1")});
    for (const QString& id : ids) say(QStringLiteral("Evaluate: %1").arg(workbench.variantEntry(id)->name));
    wait_until([&] { return !workbench.jobs().busy(); }, kPatienceMs);
    if (QFileInfo::exists(state.resultsPath)) say(QStringLiteral("  results.h5  %1").arg(bytes_of(state.resultsPath)));

    for (const char* type : {"outliers", "error", "attention", "alpha", "chat"}) {
      const QString id = QLatin1String(type);
      ViewBase* view = window.openView(id);
      const QString missing =
          view ? fill_view(window, *view, kPatienceMs) : QStringLiteral("this build does not have it.");
      if (!missing.isEmpty()) {
        failures.texts << QStringLiteral("View %1: %2").arg(id, missing);
        continue;
      }
      for (const char* suffix : {"svg", "pdf", "png", "csv"}) {
        const QString problem = window.exportView(*view, out.filePath(id + QLatin1Char('.') + QLatin1String(suffix)));
        if (!problem.isEmpty()) failures.texts << problem;
      }
      say(QStringLiteral("View: %1.svg .pdf .png .csv  (%2)").arg(id, view->accessibleSummary()));
    }
    if (!window.saveSession(out.filePath(QStringLiteral("session.qsession"))))
      failures.texts << window.bannerText();
    else
      say(QStringLiteral("Saved: session.qsession"));
  } catch (const Error& error) {
    failures.texts << QString::fromUtf8(error.what());
  }
  failures.texts.removeDuplicates();
  for (const QString& text : failures.texts) err << "Failed: " << text << Qt::endl;
  if (failures.texts.isEmpty()) say(QStringLiteral("Done: %1").arg(out.path()));
  return failures.texts.isEmpty() ? 0 : 1;
}

namespace {

/// Opens the dialog of `action`, grabs it as soon as nothing runs any more, and closes it.
bool grab_dialog(MainWindow& window, const QString& action, const QString& path) {
  bool saved = false, seen = false;
  QTimer poll;
  QObject::connect(&poll, &QTimer::timeout, &window, [&] {
    for (QWidget* widget : QApplication::topLevelWidgets()) {
      auto* dialog = qobject_cast<QDialog*>(widget);
      if (!dialog || !dialog->isVisible() || window.workbench().jobs().busy()) continue;
      if (!std::exchange(seen, true)) return;  // laid out and painted once before it is grabbed
      saved = dialog->grab().save(path);
      dialog->reject();
      poll.stop();
    }
  });
  poll.start(30);
  window.actions().action(action)->trigger();
  wait_until([&] { return saved; }, 5000);
  return saved;
}

}  // namespace

int run_screenshots(const QString& folder, QSize size) {
  QTextStream err(stderr);
  if (!QDir().mkpath(folder)) {
    err << "The folder '" << folder << "' cannot be made. Check its permissions." << Qt::endl;
    return 1;
  }
  Workbench workbench;
  MainWindow window(workbench);
  window.setProperty("quiet", true);
  window.resize(size);
  window.show();
  if (!window.openSample()) {
    err << window.bannerText() << Qt::endl;
    return 1;
  }
  window.applyLayout(QStringLiteral("explore"));
  const QString tag =
      QStringLiteral("-%1-%2x%3.png").arg(theme_id(current_theme())).arg(size.width()).arg(size.height());
  if (auto* start = window.findChild<SampleStart*>()) {
    bool filled = false;
    QObject::connect(start, &SampleStart::filled, &window, [&](qint64 ms) {
      filled = true;
      say(QStringLiteral("every view filled after %1 ms").arg(ms));
    });
    wait_until([&] { return filled; }, kPatienceMs);
  }
  QElapsedTimer clock;
  clock.start();
  for (const ViewType& type : view_types()) window.openView(type.id);
  int failed = 0;
  for (ViewBase* view : window.area().views()) {
    window.area().activate(view);
    const QString missing = fill_view(window, *view, kPatienceMs);
    if (!missing.isEmpty() && view->state() != ViewState::Empty) {
      err << view->viewId() << ": " << missing << Qt::endl;
      ++failed;
    }
    QApplication::processEvents();
    const QString path = QDir(folder).filePath(view->viewId() + tag);
    if (!window.grab().save(path)) ++failed;
    say(QStringLiteral("%1  after %2 ms").arg(path).arg(clock.elapsed()));
  }
  for (const char* id :
       {"file.open_folder", "edit.preferences", "capture.kv", "quantize.new", "compare.evaluate", "help.about"}) {
    const QString action = QLatin1String(id), path = QDir(folder).filePath(action + tag);
    if (grab_dialog(window, action, path))
      say(path);
    else
      ++failed;
  }
  workbench.newSession();
  QApplication::processEvents();
  if (!window.grab().save(QDir(folder).filePath(QStringLiteral("welcome") + tag))) ++failed;
  return failed ? 1 : 0;
}

}  // namespace qs
