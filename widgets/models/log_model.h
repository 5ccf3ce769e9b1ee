#pragma once

#include <QAbstractTableModel>
#include <QDateTime>
#include <QString>
#include <deque>

namespace qs {

struct LogLine {
  enum class Level { Info, Warning, Error };
  QDateTime time;
  Level level = Level::Info;
  QString text, detail;
};

/// The newest 10,000 lines of the log, oldest first. Columns: time, level, text.
class LogModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  static constexpr int kLimit = 10000;
  enum Column { Time, Level, Text, ColumnTotal };
  enum Role { DetailRole = Qt::UserRole + 1 };
  explicit LogModel(QObject* parent = nullptr);

  void append(const LogLine& line);
  void append(LogLine::Level level, const QString& text, const QString& detail = {});
  void clear();
  QString asText() const;  ///< all lines with their details, for Copy diagnostics

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  std::deque<LogLine> lines_;
};

}  // namespace qs
