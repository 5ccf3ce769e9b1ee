#include "widgets/models/jobs_model.h"

#include <algorithm>

namespace qs {

QString durationText(qint64 milliseconds) {
  if (milliseconds < 0) return QStringLiteral("–");
  if (milliseconds < 10000) return JobsModel::tr("%1 s").arg(static_cast<double>(milliseconds) / 1000.0, 0, 'f', 1);
  const qint64 seconds = milliseconds / 1000;
  const QString tail = QStringLiteral(":%1").arg(seconds % 60, 2, 10, QLatin1Char('0'));
  if (seconds < 3600) return QString::number(seconds / 60) + tail;
  return QString::number(seconds / 3600) + QStringLiteral(":%1").arg(seconds / 60 % 60, 2, 10, QLatin1Char('0')) + tail;
}

JobsModel::JobsModel(QObject* parent) : QAbstractTableModel(parent) {}

void JobsModel::update(const JobRow& row) {
  const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const JobRow& other) { return other.id == row.id; });
  if (found == rows_.end()) {
    beginInsertRows({}, 0, 0);
    rows_.prepend(row);
    endInsertRows();
    return;
  }
  if (*found == row) return;
  *found = row;
  const int at = static_cast<int>(found - rows_.begin());
  Q_EMIT dataChanged(index(at, 0), index(at, ColumnTotal - 1));
}

void JobsModel::setJobs(QVector<JobRow> oldestFirst) {
  beginResetModel();
  std::reverse(oldestFirst.begin(), oldestFirst.end());
  rows_ = std::move(oldestFirst);
  endResetModel();
}

void JobsModel::clearEnded() {
  for (int row = static_cast<int>(rows_.size()) - 1; row >= 0; --row) {
    if (rows_[row].state == JobRow::State::Queued || rows_[row].state == JobRow::State::Running) continue;
    beginRemoveRows({}, row, row);
    rows_.removeAt(row);
    endRemoveRows();
  }
}

int JobsModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(rows_.size());
}
int JobsModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnTotal; }

QVariant JobsModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const JobRow& row = rows_[index.row()];
  switch (role) {
    case IdRole:
      return row.id;
    case FractionRole:
      return row.fraction;
    case StateRole:
      return static_cast<int>(row.state);
    case DetailRole:
      return row.detail;
    case Qt::ToolTipRole:
      return row.message.isEmpty() ? QVariant() : QVariant(row.message);
    case Qt::TextAlignmentRole:
      return static_cast<int>(
          (index.column() >= Elapsed || index.column() == Progress ? Qt::AlignRight : Qt::AlignLeft) |
          Qt::AlignVCenter);
    case Qt::DisplayRole:
      break;
    default:
      return {};
  }
  switch (index.column()) {
    case Title:
      return row.place.isEmpty() ? row.title : tr("%1 (%2)").arg(row.title, row.place);
    case StateColumn: {
      switch (row.state) {
        case JobRow::State::Queued:
          return tr("queued");
        case JobRow::State::Running:
          return tr("running");
        case JobRow::State::Succeeded:
          return tr("done");
        case JobRow::State::Failed:
          return tr("failed");
        case JobRow::State::Cancelled:
          return tr("cancelled");
      }
      return {};
    }
    case Progress:
      return QStringLiteral("%1 %").arg(row.fraction * 100.0, 0, 'f', 0);
    case Step:
      return row.state == JobRow::State::Failed ? row.message : row.step;
    case Elapsed:
      return durationText(row.elapsedMs);
    case Left:
      return row.state == JobRow::State::Running ? durationText(row.leftMs) : QString();
    default:
      return {};
  }
}

QVariant JobsModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (role != Qt::DisplayRole || orientation != Qt::Horizontal) return {};
  switch (section) {
    case Title:
      return tr("Job");
    case StateColumn:
      return tr("State");
    case Progress:
      return tr("Progress");
    case Step:
      return tr("Step");
    case Elapsed:
      return tr("Elapsed");
    case Left:
      return tr("Time left");
    default:
      return {};
  }
}

}  // namespace qs
