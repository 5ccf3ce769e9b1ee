#include "widgets/models/log_model.h"

namespace qs {

namespace {

QString levelText(LogLine::Level level) {
  switch (level) {
    case LogLine::Level::Info:
      return QStringLiteral("info");
    case LogLine::Level::Warning:
      return QStringLiteral("warning");
    case LogLine::Level::Error:
      return QStringLiteral("error");
  }
  return {};
}

}  // namespace

LogModel::LogModel(QObject* parent) : QAbstractTableModel(parent) {}

void LogModel::append(const LogLine& line) {
  if (static_cast<int>(lines_.size()) == kLimit) {
    beginRemoveRows({}, 0, 0);
    lines_.pop_front();
    endRemoveRows();
  }
  const int row = static_cast<int>(lines_.size());
  beginInsertRows({}, row, row);
  lines_.push_back(line);
  endInsertRows();
}

void LogModel::append(LogLine::Level level, const QString& text, const QString& detail) {
  append({QDateTime::currentDateTime(), level, text, detail});
}

void LogModel::clear() {
  beginResetModel();
  lines_.clear();
  endResetModel();
}

QString LogModel::asText() const {
  QString text;
  for (const LogLine& line : lines_) {
    text += line.time.toString(Qt::ISODateWithMs) + QLatin1Char(' ') + levelText(line.level) + QLatin1Char(' ') +
            line.text + QLatin1Char('\n');
    if (!line.detail.isEmpty())
      text += QStringLiteral("    ") + QString(line.detail).replace(u'\n', QStringLiteral("\n    ")) + u'\n';
  }
  return text;
}

int LogModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(lines_.size());
}
int LogModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnTotal; }

QVariant LogModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const LogLine& line = lines_[static_cast<std::size_t>(index.row())];
  if (role == DetailRole) return line.detail;
  if (role == Qt::ToolTipRole && !line.detail.isEmpty()) return line.detail;
  if (role != Qt::DisplayRole) return {};
  switch (index.column()) {
    case Time:
      return line.time.toString(QStringLiteral("HH:mm:ss.zzz"));
    case Level:
      return levelText(line.level);
    case Text:
      return line.text;
    default:
      return {};
  }
}

QVariant LogModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (role != Qt::DisplayRole || orientation != Qt::Horizontal) return {};
  switch (section) {
    case Time:
      return tr("Time");
    case Level:
      return tr("Level");
    case Text:
      return tr("Message");
    default:
      return {};
  }
}

}  // namespace qs
