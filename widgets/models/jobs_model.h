#pragma once

#include <QAbstractTableModel>
#include <QString>
#include <QVector>

namespace qs {

/// One job as a panel shows it; the runner in `app` fills it.
struct JobRow {
  enum class State { Queued, Running, Succeeded, Failed, Cancelled };
  quint64 id = 0;
  QString title, place;
  State state = State::Queued;
  double fraction = 0.0;  ///< 0..1
  QString step;
  qint64 elapsedMs = 0, leftMs = -1;  ///< -1: unknown yet
  QString message, detail;            ///< of a failure
  bool operator==(const JobRow&) const = default;
};

/// "12:40", "1:02:03" or "0.4 s" for times under ten seconds.
QString durationText(qint64 milliseconds);

/// Jobs, newest first. Columns: title, state, progress, step, elapsed, left.
class JobsModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { Title, StateColumn, Progress, Step, Elapsed, Left, ColumnTotal };
  enum Role { IdRole = Qt::UserRole + 1, FractionRole, StateRole, DetailRole };
  explicit JobsModel(QObject* parent = nullptr);

  /// Inserts the job or replaces the row with its id.
  void update(const JobRow& row);
  void setJobs(QVector<JobRow> oldestFirst);
  void clearEnded();
  const JobRow& at(int row) const { return rows_[row]; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  QVector<JobRow> rows_;
};

}  // namespace qs
