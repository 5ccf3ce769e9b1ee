#include "widgets/models/layer_setups_model.h"

namespace qs {

LayerSetupsModel::LayerSetupsModel(QObject* parent) : QAbstractTableModel(parent) {}

void LayerSetupsModel::setRows(std::vector<LayerSetupRow> rows) {
  if (rows.size() != rows_.size()) {
    beginResetModel();
    rows_ = std::move(rows);
    endResetModel();
    return;
  }
  for (std::size_t row = 0; row < rows.size(); ++row) {
    if (rows_[row] == rows[row]) continue;
    rows_[row] = std::move(rows[row]);
    Q_EMIT dataChanged(index(int(row), 0), index(int(row), ColumnTotal - 1));
  }
}

int LayerSetupsModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(rows_.size());
}

int LayerSetupsModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnTotal; }

QVariant LayerSetupsModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const LayerSetupRow& row = rows_[static_cast<std::size_t>(index.row())];
  if (role == Qt::DisplayRole) {
    switch (index.column()) {
      case Method:
        return row.method;
      case Line:
        return row.line.isEmpty() ? tr("none") : row.line;
      case Bits:
        return row.issue.isEmpty() ? QString::number(row.bits, 'f', 3) : QString();
      default:
        return row.issue.isEmpty() ? QString() : QStringLiteral("⚠ ") + row.issue;
    }
  }
  if (role == Qt::EditRole) return index.column() == Bits ? QVariant(row.bits) : data(index, Qt::DisplayRole);
  if (role == Qt::ToolTipRole) return row.issue.isEmpty() ? row.line : row.issue;
  if (role == Qt::TextAlignmentRole)
    return static_cast<int>((index.column() == Bits ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  return {};
}

QVariant LayerSetupsModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation == Qt::Vertical) return role == Qt::DisplayRole ? QVariant(section) : QVariant();
  if (role != Qt::DisplayRole) return {};
  switch (section) {
    case Method:
      return tr("Method");
    case Line:
      return tr("Setup");
    case Bits:
      return tr("Effective bits");
    default:
      return tr("Problem");
  }
}

}  // namespace qs
