#pragma once

#include <QAbstractItemModel>
#include <memory>

#include "backend/types/capture_info.h"

namespace qs {

/// The datasets of one capture as a tree of groups ("/layers/003/key"). Columns: name, shape, type, axes, bytes; a
/// group's bytes are the sum of what lies in it.
class DatasetTreeModel : public QAbstractItemModel {
  Q_OBJECT
 public:
  enum Column { Name, Shape, Type, Axes, Bytes, ColumnTotal };
  enum Role { PathRole = Qt::UserRole + 1, BytesRole };
  explicit DatasetTreeModel(QObject* parent = nullptr);
  ~DatasetTreeModel() override;

  void setCapture(const CaptureInfo& info);
  void clear();
  /// Index of a dataset or group by path; invalid when it is not there.
  QModelIndex indexOfPath(const QString& path) const;

  QModelIndex index(int row, int column, const QModelIndex& parent = {}) const override;
  QModelIndex parent(const QModelIndex& child) const override;
  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  struct Node;
  const Node* node(const QModelIndex& index) const;
  std::unique_ptr<Node> root_;
};

/// "12.4 MiB", "640 B"
QString bytesText(qint64 bytes);

}  // namespace qs
