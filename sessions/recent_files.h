#pragma once

#include <QString>
#include <QStringList>

namespace qs {

/// The newest first, without doubles, at most `limit`.
QStringList with_recent(QStringList recent, const QString& path, int limit = 10);

/// Those that still exist.
QStringList existing_files(const QStringList& recent);

/// What a file or folder is, judged by its content, never by its name alone.
enum class FileKind { Missing, Unknown, Session, ModelFolder, ModelFile, Capture, Results };

/// Looks at folders for config.json or the snapshots of a hub cache entry, at files for their first bytes (HDF5
/// signature and the attribute `format`, JSON with the session's format field, GGUF, safetensors, llama2.c, pickles:
/// the model reader then says what it can open).
FileKind detect_file_kind(const QString& path);

}  // namespace qs
