#include "app/settings.h"

#include "sessions/recent_files.h"

namespace qs {

QSettings& app_settings() {
  // QUANTOSCOPE_SETTINGS names another file: for tests and for trying things out.
  static const QString named = qEnvironmentVariable("QUANTOSCOPE_SETTINGS");
  static QSettings* settings = named.isEmpty()
                                   ? new QSettings(QSettings::IniFormat, QSettings::UserScope,
                                                   QStringLiteral("quantoscope"), QStringLiteral("quantoscope"))
                                   : new QSettings(named, QSettings::IniFormat);
  return *settings;
}

QStringList recent_files() { return existing_files(app_settings().value(QStringLiteral("recent")).toStringList()); }

void add_recent_file(const QString& path) {
  app_settings().setValue(QStringLiteral("recent"),
                          with_recent(app_settings().value(QStringLiteral("recent")).toStringList(), path));
}

void clear_recent_files() { app_settings().remove(QStringLiteral("recent")); }

}  // namespace qs
