#pragma once

#include <QJsonDocument>
#include <QJsonObject>
#include <QProcess>
#include <QStringList>

/// What one call of quantoscope-cli gave.
struct CliResult {
  int status = -1;
  QByteArray out, error;
  QJsonDocument json() const { return QJsonDocument::fromJson(out); }
};

/// Runs the built program. @param shell_prefix  "ulimit -v 100000" and the like, set before it starts
inline CliResult run_cli(const QStringList& arguments, const QString& shell_prefix = {}) {
  QProcess process;
  const QString program = QStringLiteral(QS_BIN "/quantoscope-cli");
  if (shell_prefix.isEmpty()) {
    process.start(program, arguments);
  } else {
    process.start(
        QStringLiteral("/bin/sh"),
        QStringList{QStringLiteral("-c"), shell_prefix + QStringLiteral("; exec \"$0\" \"$@\""), program} + arguments);
  }
  process.waitForFinished(120000);
  return {process.exitStatus() == QProcess::NormalExit ? process.exitCode() : -1, process.readAllStandardOutput(),
          process.readAllStandardError()};
}
