#pragma once

#include <QAbstractItemModel>
#include <QHash>
#include <memory>

#include "backend/types/module_info.h"

namespace qs {

/// A number for some modules of a model, shown as a colour column.
struct ModuleColumn {
  QString title, unit, help;
  QHash<QString, double> values;  ///< by ModuleInfo::path of a tensor
  bool logarithmic = false;       ///< colours by the logarithm; only values above 0 are coloured then
};

/// Modules and tensors of a checkpoint as a tree. Columns: name, shape, type, parameters, bytes and the chosen
/// statistic; a module shows the largest statistic of what lies in it.
class ModuleTreeModel : public QAbstractItemModel {
  Q_OBJECT
 public:
  enum Column { Name, Shape, Type, Parameters, Bytes, Statistic, ColumnTotal };
  enum Role { PathRole = Qt::UserRole + 1, LinearRole, ValueRole, PositionRole };  ///< Position: 0..1 on the colour map

  explicit ModuleTreeModel(QObject* parent = nullptr);
  ~ModuleTreeModel() override;

  void setModules(const ModuleInfo& root);
  void setColumn(ModuleColumn column);
  const ModuleColumn& column() const { return column_; }
  bool isEmpty() const { return rowCount() == 0; }
  double lowest() const { return low_; }  ///< ends of the coloured range; NaN without values
  double highest() const { return high_; }

  QModelIndex index(int row, int column, const QModelIndex& parent = {}) const override;
  QModelIndex parent(const QModelIndex& child) const override;
  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  struct Node;
  const Node* node(const QModelIndex& index) const;
  void fillValues(Node& node);
  double position(double value) const;

  std::unique_ptr<Node> root_;
  ModuleColumn column_;
  double low_, high_;
};

}  // namespace qs
