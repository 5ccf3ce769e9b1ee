#include "app/presenters/tensor_presenter.h"

#include <QFileInfo>

#include "backend/types/error.h"

namespace qs {

TensorPresenter::TensorPresenter(Workbench& workbench, HeatmapView& view, QObject* parent)
    : QObject(parent), workbench_(workbench), view_(view) {
  soon_.setSingleShot(true);
  soon_.setInterval(0);
  connect(&soon_, &QTimer::timeout, this, [this] { update(); });
  connect(&view_, &HeatmapView::selectionMoved, this, &TensorPresenter::refresh);
  connect(&workbench_, &Workbench::captureReady, this, [this](const QString& id) {
    if (id == captureA()) forget();
    refresh();
  });
  connect(&workbench_, &Workbench::variantsChanged, this, &TensorPresenter::refresh);
  connect(&workbench_, &Workbench::capturesChanged, this, &TensorPresenter::refresh);
  connect(&workbench_, &Workbench::sessionReplaced, this, [this] {
    cancelAll();
    shown_ = false;
    forget();
    refresh();
  });
  connect(&view_, &ViewBase::cancelRequested, this, [this] {
    cancelAll();
    view_.setState(shown_ ? ViewState::Ready : ViewState::Cancelled);
  });
  connect(&view_, &ViewBase::actionRequested, this, [this](const QString& action) {
    if (action != QLatin1String("view.retry") && action != QLatin1String("view.recompute")) return;
    forget();
    refresh();
  });
  refresh();
}

void TensorPresenter::refresh() {
  if (!soon_.isActive()) soon_.start();
}

QString TensorPresenter::captureA() const {
  const QString chosen = view_.selection().captureA;
  if (!chosen.isEmpty() && workbench_.captureEntry(chosen)) return chosen;
  const auto& captures = workbench_.session().captures;
  return captures.isEmpty() ? QString() : captures.first().id;
}

QString TensorPresenter::captureB() const {
  const QString chosen = view_.selection().captureB;
  return !chosen.isEmpty() && chosen != captureA() && workbench_.isReadable(chosen) ? chosen : QString();
}

bool TensorPresenter::requireCapture() {
  const QString id = captureA();
  if (id.isEmpty()) {
    view_.setState(ViewState::Empty,
                   tr("There is no capture yet. Run a text through a model to see its keys and values."),
                   QStringLiteral("capture.kv"), tr("Capture KV..."));
    return false;
  }
  const auto entry = workbench_.captureEntry(id);
  if (entry && !workbench_.isReadable(id)) {
    view_.setState(ViewState::Empty,
                   tr("The capture '%1' is not there yet; this view fills as soon as it is made.")
                       .arg(QFileInfo(entry->path).fileName()),
                   QStringLiteral("capture.kv"), tr("Capture KV..."));
    return false;
  }
  return true;
}

void TensorPresenter::describe(const CaptureInfo& info, const QString& variant, const QString& command) {
  Provenance provenance;
  provenance.session = workbench_.session().title;
  provenance.variant = variant;
  provenance.data = tr("%1 on %2, %3 tokens%4")
                        .arg(QString::fromStdString(info.model_name), QString::fromStdString(info.text_source))
                        .arg(info.tokens)
                        .arg(info.complete ? QString() : tr(" (incomplete)"));
  provenance.program = QStringLiteral("Quantoscope " QUANTOSCOPE_VERSION);
  provenance.command = command;
  view_.setProvenance(provenance);
}

quint64 TensorPresenter::begin(const QString& slot, const QString& title, bool quiet) {
  drop(slot);
  if (!quiet) {
    loud_.insert(slot);
    view_.setState(ViewState::Loading, title);
  }
  return ++generation_[slot];
}

void TensorPresenter::drop(const QString& slot) {
  if (const auto job = running_.constFind(slot); job != running_.constEnd()) {
    workbench_.jobs().cancel(*job);
    running_.erase(job);
    loud_.remove(slot);
    ++generation_[slot];
  }
}

void TensorPresenter::finish(const QString& slot) {
  running_.remove(slot);
  loud_.remove(slot);
  shown_ = true;
  if (loud_.isEmpty()) view_.setState(ViewState::Ready);
}

void TensorPresenter::ended(const QString& slot, const JobStatus& status, bool quiet) {
  running_.remove(slot);
  loud_.remove(slot);
  if (quiet) return;
  if (status.state == JobState::Failed) {
    view_.setState(ViewState::Failed, status.message, QStringLiteral("view.retry"), tr("Retry"), status.detail);
  } else if (loud_.isEmpty()) {
    view_.setState(shown_ ? ViewState::Ready : ViewState::Cancelled);
  }
}

void TensorPresenter::cancelAll() {
  const QStringList slots_here = running_.keys();
  for (const QString& slot : slots_here) drop(slot);
}

QStringList token_texts(CaptureReader& capture) {
  QStringList texts;
  for (const std::string& text : capture.token_texts()) texts << QString::fromStdString(text);
  return texts;
}

}  // namespace qs
