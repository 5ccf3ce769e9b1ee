#include "app/sample_start.h"

#include <QElapsedTimer>
#include <QFile>

#include "app/main_window.h"
#include "app/view_area.h"
#include "app/workbench.h"
#include "widgets/view_base.h"
#include "widgets/views/alpha_sweep_view.h"
#include "widgets/views/chat_view.h"

namespace qs {

qint64 ms_since_process_start() {
  // Ticks of 10 ms: field 22 of stat, counted after the name, which may hold spaces.
  QFile stat(QStringLiteral("/proc/self/stat")), uptime(QStringLiteral("/proc/uptime"));
  if (stat.open(QIODevice::ReadOnly) && uptime.open(QIODevice::ReadOnly)) {
    const QByteArray line = stat.readAll();
    const qint64 begun = line.mid(line.lastIndexOf(')') + 2).split(' ').value(19).toLongLong() * 10;
    return qint64(uptime.readAll().split(' ').value(0).toDouble() * 1000) - begun;
  }
  static const QElapsedTimer clock = [] {
    QElapsedTimer timer;
    timer.start();
    return timer;
  }();
  return clock.elapsed();
}

SampleStart::SampleStart(MainWindow& window) : QObject(&window), window_(window) {
  setObjectName(QStringLiteral("sampleStart"));
  connect(&window.workbench(), &Workbench::sessionReplaced, this, [this] {
    over_ = true;
    deleteLater();
  });
  connect(&window.workbench().jobs(), &JobRunner::jobChanged, this, &SampleStart::look, Qt::QueuedConnection);
}

void SampleStart::look() {
  if (over_) return;
  const auto done = [](const ViewBase* view) {
    return !view || (view->state() != ViewState::Empty && view->state() != ViewState::Loading &&
                     view->state() != ViewState::Partial);
  };
  for (const char* type : {"outliers", "error", "attention"}) {
    if (!done(window_.viewOfType(QLatin1String(type)))) return;
  }
  auto* chat = qobject_cast<ChatView*>(window_.viewOfType(QStringLiteral("chat")));
  if (chat && !sent_) {
    sent_ = true;
    if (!chat->running() && chat->column(0)->state() == ChatColumn::State::Idle) {
      Q_EMIT chat->sendRequested(chat->request());
      ran_ = chat->running();
    }
  }
  // The columns fill before the replay that measures the divergence ends.
  for (int i = 0; chat && ran_ && i < chat->columnCount(); ++i) {
    const ChatColumn::State state = chat->column(i)->state();
    if (state == ChatColumn::State::Waiting || state == ChatColumn::State::Running) return;
  }
  const auto* alpha = qobject_cast<AlphaSweepView*>(window_.viewOfType(QStringLiteral("alpha")));
  if (!done(alpha) || (alpha && alpha->state() == ViewState::Ready && alpha->result().schemes.empty())) return;
  over_ = true;
  Q_EMIT filled(ms_since_process_start());
  deleteLater();
}

}  // namespace qs
