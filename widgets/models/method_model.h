#pragma once

#include <QAbstractTableModel>
#include <vector>

#include "backend/types/method_info.h"

namespace qs {

/// The declared methods. Columns: title, family, paper, effective bits, summary. A method that cannot run here is
/// disabled and says why in its tool tip.
class MethodModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { Title, Family, Paper, EffectiveBits, Summary, ColumnTotal };
  enum Role { IdRole = Qt::UserRole + 1 };
  explicit MethodModel(QObject* parent = nullptr);

  void setMethods(std::vector<MethodInfo> methods);
  const MethodInfo& at(int row) const { return methods_[static_cast<std::size_t>(row)]; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;
  Qt::ItemFlags flags(const QModelIndex& index) const override;

 private:
  std::vector<MethodInfo> methods_;
};

}  // namespace qs
