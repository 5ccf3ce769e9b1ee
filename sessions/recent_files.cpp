#include "sessions/recent_files.h"

#include <QDir>
#include <QFile>
#include <QFileInfo>
#include <QtEndian>
#include <array>

namespace qs {

QStringList with_recent(QStringList recent, const QString& path, int limit) {
  const QString clean =
      path.startsWith(QStringLiteral("sample:")) ? path : QDir::cleanPath(QFileInfo(path).absoluteFilePath());
  recent.removeAll(clean);
  recent.prepend(clean);
  while (recent.size() > limit) recent.removeLast();
  return recent;
}

QStringList existing_files(const QStringList& recent) {
  QStringList result;
  for (const QString& path : recent) {
    if (QFileInfo::exists(path)) result << path;
  }
  return result;
}

FileKind detect_file_kind(const QString& path) {
  const QFileInfo info(path);
  if (!info.exists()) return FileKind::Missing;
  if (info.isDir()) {
    const auto holds = [&](const char* name) {
      return QFileInfo::exists(path + QLatin1Char('/') + QLatin1String(name));
    };
    return holds("config.json") || holds("snapshots") || holds("params.json") ? FileKind::ModelFolder
                                                                              : FileKind::Unknown;
  }
  if (info.fileName() == QStringLiteral("config.json")) return FileKind::ModelFolder;
  QFile file(path);
  if (!file.open(QIODevice::ReadOnly)) return FileKind::Unknown;
  const QByteArray head = file.read(1 << 16);
  if (head.startsWith("\x89HDF\r\n\x1a\n")) {
    // The attribute `format` lies in the root object header or, with many attributes, at the end of the file.
    QByteArray seen = head;
    if (file.size() > (2 << 16) && file.seek(file.size() - (1 << 16))) seen += file.readAll();
    return seen.contains("quantoscope-results") ? FileKind::Results : FileKind::Capture;
  }
  if (head.contains("quantoscope-session")) return FileKind::Session;
  if (head.trimmed().startsWith('{')) return FileKind::Session;  // a damaged one: the reader says what is wrong
  if (head.startsWith("GGUF") || head.startsWith("ak42") || head.startsWith("24ka")) return FileKind::ModelFile;
  if (head.startsWith("PK\x03\x04") || head.startsWith("\x80\x02")) return FileKind::ModelFile;  // a pickle
  if (info.suffix() == QLatin1String("safetensors") && head.size() > 8 && head[8] == '{') return FileKind::ModelFile;
  if (head.size() >= 28) {
    // hidden, intermediate, layers, heads, kv_heads, vocab (negative: separate classifier), context
    std::array<qint32, 7> header{};
    for (std::size_t i = 0; i < header.size(); ++i) header[i] = qFromLittleEndian<qint32>(head.constData() + 4 * i);
    const auto within = [](qint32 value, qint32 high) { return value > 0 && value <= high; };
    if (within(header[0], 1 << 16) && within(header[1], 1 << 18) && within(header[2], 1024) &&
        within(header[3], 1024) && within(header[4], header[3]) && header[5] != 0 && within(header[6], 1 << 24) &&
        header[0] % header[3] == 0) {
      return FileKind::ModelFile;
    }
  }
  return FileKind::Unknown;
}

}  // namespace qs
