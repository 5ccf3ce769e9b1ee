#include "sessions/recovery.h"

#include <QCoreApplication>
#include <QDateTime>
#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QSaveFile>
#include <QUuid>

#include "backend/types/error.h"
#include "sessions/session_file.h"

namespace qs {
namespace {

constexpr auto kSuffix = ".autosave";

/// First line: the session's own path; then the session with absolute paths.
QByteArray side_text(const SessionState& state, const QString& path) {
  return path.toUtf8() + '\n' + session_to_json(state);
}

QString lock_of(const QString& side_file) { return side_file.chopped(int(qstrlen(kSuffix))) + QStringLiteral(".lock"); }

}  // namespace

Recovery::Recovery(const QString& folder) : folder_(folder), id_(QUuid::createUuid().toString(QUuid::WithoutBraces)) {
  if (!QDir().mkpath(folder_)) {
    throw Error(ErrorCode::Io,
                QStringLiteral("The folder '%1' for automatic saves cannot be made. Check its permissions.")
                    .arg(folder_)
                    .toStdString());
  }
  lock_ = std::make_unique<QLockFile>(folder_ + QLatin1Char('/') + id_ + QStringLiteral(".lock"));
  lock_->setStaleLockTime(0);
  if (!lock_->tryLock(0)) {
    throw Error(ErrorCode::Io,
                QStringLiteral("The folder '%1' for automatic saves cannot be written. Check its permissions.")
                    .arg(folder_)
                    .toStdString());
  }
}

Recovery::~Recovery() {
  drop();
  lock_->unlock();
}

QString Recovery::sideFile() const { return folder_ + QLatin1Char('/') + id_ + QLatin1String(kSuffix); }

void Recovery::save(const SessionState& state, const QString& path) {
  QSaveFile file(sideFile());
  const QByteArray text = side_text(state, path);
  if (!file.open(QIODevice::WriteOnly) || file.write(text) != text.size() || !file.commit()) {
    throw Error(ErrorCode::Io, QStringLiteral("The automatic save '%1' could not be written: %2.")
                                   .arg(sideFile(), file.errorString())
                                   .toStdString());
  }
}

void Recovery::drop() { QFile::remove(sideFile()); }

std::optional<RecoveredSession> Recovery::find(QString* problem) const {
  const QDir folder(folder_);
  const QFileInfoList files =
      folder.entryInfoList({QStringLiteral("*%1").arg(QLatin1String(kSuffix))}, QDir::Files, QDir::Time);
  for (const QFileInfo& info : files) {
    const QString side = info.absoluteFilePath();
    if (side == QFileInfo(sideFile()).absoluteFilePath()) continue;
    QLockFile lock(lock_of(side));
    lock.setStaleLockTime(0);
    if (!lock.tryLock(0)) continue;  // its program is alive
    QFile file(side);
    if (!file.open(QIODevice::ReadOnly)) continue;
    const QString path = QString::fromUtf8(file.readLine()).chopped(1);
    try {
      return RecoveredSession{session_from_json(file.readAll(), side), path, info.lastModified().toString(Qt::ISODate),
                              side};
    } catch (const Error& error) {
      if (problem) *problem = QString::fromUtf8(error.what());
    }
  }
  return std::nullopt;
}

void Recovery::discard(const RecoveredSession& found) const {
  QFile::remove(found.side_file);
  QFile::remove(lock_of(found.side_file));
}

}  // namespace qs
