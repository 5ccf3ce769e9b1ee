#include "sessions/session_document.h"

namespace qs {
namespace {

/// Undo and redo leave alone where the user looks and which files exist by now.
SessionState keep_noted(SessionState target, const SessionState& current) {
  target.selection = current.selection;
  target.activeView = current.activeView;
  target.resultsPath = current.resultsPath;
  for (ModelEntry& model : target.models) {
    for (const ModelEntry& known : current.models) {
      if (known.id == model.id && known.path == model.path) model.fingerprint = known.fingerprint;
    }
  }
  return target;
}

}  // namespace

SessionDocument::SessionDocument(QObject* parent) : QObject(parent) {}

bool SessionDocument::isModified() const {
  SessionState saved = saved_;
  saved.selection = state_.selection;
  saved.activeView = state_.activeView;
  return state_ != saved;
}

void SessionDocument::apply(const QString& text, const SessionState& next, const QString& mergeKey) {
  if (next == state_) return;
  const bool merges = !mergeKey.isEmpty() && !undo_.isEmpty() && undo_.last().mergeKey == mergeKey && redo_.isEmpty();
  if (!merges) {
    undo_.append({text, mergeKey, state_});
    if (undo_.size() > kMaxUndo) undo_.removeFirst();
  }
  redo_.clear();
  state_ = next;
  Q_EMIT changed();
}

void SessionDocument::undo() {
  if (undo_.isEmpty()) return;
  const Step step = undo_.takeLast();
  redo_.append({step.text, step.mergeKey, state_});
  state_ = keep_noted(step.state, state_);
  Q_EMIT stateReplaced();
  Q_EMIT changed();
}

void SessionDocument::redo() {
  if (redo_.isEmpty()) return;
  const Step step = redo_.takeLast();
  undo_.append({step.text, step.mergeKey, state_});
  state_ = keep_noted(step.state, state_);
  Q_EMIT stateReplaced();
  Q_EMIT changed();
}

void SessionDocument::reset(const SessionState& state, const QString& path, bool modified) {
  state_ = state;
  saved_ = modified ? SessionState{} : state;
  path_ = path;
  undo_.clear();
  redo_.clear();
  Q_EMIT changed();
}

void SessionDocument::markSaved(const QString& path) {
  saved_ = state_;
  path_ = path;
  Q_EMIT changed();
}

void SessionDocument::replaceCurrent(const SessionState& next) {
  if (next == state_) return;
  state_ = next;
  Q_EMIT changed();
}

}  // namespace qs
