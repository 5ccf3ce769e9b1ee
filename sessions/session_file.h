#pragma once

#include <QByteArray>
#include <QString>

#include "sessions/session_state.h"

namespace qs {

/// A session as text: JSON with sorted keys and four-space indents, ending in a line feed. The same state always gives
/// the same bytes.
QByteArray session_to_json(const SessionState& state);

/// @param source  file name for messages
/// @throws Error BadFormat: not JSON, not a session, a field of the wrong type or out of range (named with its path,
/// such as
///         `variants[2].kv`), an unknown field, or a list longer than 10,000 entries; Unsupported: a newer version
SessionState session_from_json(const QByteArray& json, const QString& source);

/// Paths below the file's folder are stored relative to it; `sample:` and `data:` paths stay. The file is replaced when
/// whole.
/// @throws Error Io naming the file and what the system said
void write_session(const QString& path, const SessionState& state);

/// Paths come back absolute, except `sample:` and `data:` ones.
/// @throws Error NotFound, Io, BadFormat, Unsupported
SessionState read_session(const QString& path);

/// `path` as stored in a session file that lies in `folder`, and back.
QString stored_path(const QString& path, const QString& folder);
QString absolute_path(const QString& stored, const QString& folder);

}  // namespace qs
