#include "widgets/views/figure_table.h"

namespace qs {

void FigureTable::setContent(Content content) {
  beginResetModel();
  content_ = std::move(content);
  endResetModel();
}

QVariant FigureTable::data(const QModelIndex& index, int role) const {
  if (!index.isValid() || !content_.cell) return {};
  if (role == Qt::EditRole) return content_.cell(index.row(), index.column());
  if (role == Qt::TextAlignmentRole && index.column() > 0) return QVariant(Qt::AlignRight | Qt::AlignVCenter);
  if (role != Qt::DisplayRole) return {};
  const QVariant value = content_.cell(index.row(), index.column());
  const bool real = value.typeId() == QMetaType::Double || value.typeId() == QMetaType::Float;
  return real ? QVariant(QString::number(value.toDouble(), 'g', 6)) : value;
}

QVariant FigureTable::headerData(int section, Qt::Orientation orientation, int role) const {
  if (role != Qt::DisplayRole) return {};
  if (orientation == Qt::Vertical) return section + 1;
  return content_.header && section >= 0 && section < content_.columns ? QVariant(content_.header(section))
                                                                       : QVariant();
}

}  // namespace qs
