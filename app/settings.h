#pragma once

#include <QSettings>
#include <QStringList>

namespace qs {

/// What belongs to the program and not to a session: theme, shortcuts, recent files, window geometry. GUI thread.
QSettings& app_settings();

QStringList recent_files();
void add_recent_file(const QString& path);
void clear_recent_files();

}  // namespace qs
