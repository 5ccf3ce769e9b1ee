#pragma once

#include <QLockFile>
#include <QString>
#include <memory>
#include <optional>

#include "sessions/session_state.h"

namespace qs {

/// What a program that ended without saving left behind.
struct RecoveredSession {
  SessionState state;
  QString path;       ///< of the session file it belongs to; empty for an unsaved one
  QString savedAt;    ///< local time of the autosave, ISO 8601
  QString side_file;  ///< to be dropped with discard()
};

/// Autosaves beside each other in one folder: `<id>.autosave` with `<id>.lock` held while the program lives. A lock
/// whose process is gone marks a crash.
class Recovery {
 public:
  /// Takes a fresh id in `folder` and locks it. @throws Error Io when the folder cannot be made or written
  explicit Recovery(const QString& folder);
  ~Recovery();

  /// Written beside and renamed when whole. @throws Error Io
  void save(const SessionState& state, const QString& path);
  /// After a save by the user or when nothing was changed: there is nothing to recover.
  void drop();

  /// The newest autosave of a program that is gone; unreadable ones are skipped and named in `problem`.
  std::optional<RecoveredSession> find(QString* problem = nullptr) const;
  /// Deletes the side file and its lock.
  void discard(const RecoveredSession& found) const;

  QString sideFile() const;

 private:
  QString folder_, id_;
  std::unique_ptr<QLockFile> lock_;
};

}  // namespace qs
