#pragma once

#include <QList>
#include <QObject>
#include <QString>

#include "sessions/session_state.h"

namespace qs {

/// The open session with its history. Undo is a list of earlier states: QUndoStack is QtGui, and a state is small.
class SessionDocument : public QObject {
  Q_OBJECT
 public:
  static constexpr int kMaxUndo = 200;

  explicit SessionDocument(QObject* parent = nullptr);

  const SessionState& state() const { return state_; }
  QString path() const { return path_; }  ///< of the file; empty for a session that was never saved
  bool isModified() const;                ///< selection and active view apart: looking around is no change

  /// One undoable step. Steps with the same non-empty `mergeKey` in a row become one, so a dragged slider is undone at
  /// once. A change that changes nothing is no step.
  void apply(const QString& text, const SessionState& next, const QString& mergeKey = {});
  template <typename Change>
  void edit(const QString& text, Change&& change, const QString& mergeKey = {}) {
    SessionState next = state_;
    change(next);
    apply(text, next, mergeKey);
  }

  /// Changes what undo should not step through: selection, active view, fingerprints, paths of files that were just
  /// made. Earlier states keep their own values of everything but these.
  template <typename Change>
  void note(Change&& change) {
    SessionState next = state_;
    change(next);
    replaceCurrent(next);
  }

  /// note() for values that views fill in when they are made: an unmodified document stays unmodified.
  template <typename Change>
  void settle(Change&& change) {
    const bool modified = isModified();
    SessionState next = state_;
    change(next);
    if (!modified) saved_ = next;
    replaceCurrent(next);
  }

  bool canUndo() const { return !undo_.isEmpty(); }
  bool canRedo() const { return !redo_.isEmpty(); }
  QString undoText() const { return undo_.isEmpty() ? QString() : undo_.last().text; }
  QString redoText() const { return redo_.isEmpty() ? QString() : redo_.last().text; }
  void undo();
  void redo();

  /// Another document: history is gone. @param modified  true for a recovered one
  void reset(const SessionState& state, const QString& path, bool modified = false);
  void markSaved(const QString& path);

 Q_SIGNALS:
  void changed();        ///< the state, its file or what can be undone
  void stateReplaced();  ///< by undo or redo: everybody has to look again

 private:
  struct Step {
    QString text, mergeKey;
    SessionState state;  ///< before the step (undo) or after it (redo)
  };
  void replaceCurrent(const SessionState& next);

  SessionState state_, saved_;
  QString path_;
  QList<Step> undo_, redo_;
};

}  // namespace qs
