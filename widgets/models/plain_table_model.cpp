#include "widgets/models/plain_table_model.h"

#include <cmath>

namespace qs {

PlainTableModel::PlainTableModel(QObject* parent) : QAbstractTableModel(parent) {}

void PlainTableModel::setTable(QStringList headers, QVector<Row> rows) {
  beginResetModel();
  headers_ = std::move(headers);
  rows_ = std::move(rows);
  for (Row& row : rows_) row.resize(headers_.size());
  endResetModel();
}

void PlainTableModel::setHeaders(QStringList headers) { setTable(std::move(headers), {}); }

void PlainTableModel::appendRow(Row row) {
  row.resize(headers_.size());
  beginInsertRows({}, static_cast<int>(rows_.size()), static_cast<int>(rows_.size()));
  rows_.append(std::move(row));
  endInsertRows();
}

void PlainTableModel::clear() { setTable({}, {}); }

int PlainTableModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(rows_.size());
}

int PlainTableModel::columnCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(headers_.size());
}

QVariant PlainTableModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const QVariant& cell = rows_[index.row()][index.column()];
  const bool real = cell.typeId() == QMetaType::Double || cell.typeId() == QMetaType::Float;
  if (role == Qt::EditRole) return cell;
  if (role == Qt::DisplayRole) {
    if (!real) return cell;
    const double value = cell.toDouble();
    if (std::isnan(value)) return QStringLiteral("NaN");
    return QString::number(value, 'g', 6);
  }
  if (role == Qt::TextAlignmentRole) {
    const bool number = real || cell.canConvert<qlonglong>();
    return static_cast<int>((number && cell.typeId() != QMetaType::QString ? Qt::AlignRight : Qt::AlignLeft) |
                            Qt::AlignVCenter);
  }
  return {};
}

QVariant PlainTableModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (role != Qt::DisplayRole && role != Qt::ToolTipRole) return {};
  if (orientation == Qt::Vertical) return role == Qt::DisplayRole ? QVariant(section + 1) : QVariant();
  return section >= 0 && section < headers_.size() ? QVariant(headers_[section]) : QVariant();
}

}  // namespace qs
