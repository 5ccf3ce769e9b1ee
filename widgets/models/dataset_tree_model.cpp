#include "widgets/models/dataset_tree_model.h"

#include <QStringList>
#include <algorithm>
#include <vector>

namespace qs {

QString bytesText(qint64 bytes) {
  if (bytes < 1024) return QStringLiteral("%1 B").arg(bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024.0) break;
    value /= 1024.0;
    unit = next;
  }
  return QStringLiteral("%1 %2").arg(value, 0, 'f', value < 100.0 ? 1 : 0).arg(QLatin1String(unit));
}

struct DatasetTreeModel::Node {
  QString name, path, shape, type, axes;
  qint64 bytes = 0;
  Node* parent = nullptr;
  int row = 0;
  std::vector<std::unique_ptr<Node>> children;

  Node* child(const QString& wanted) {
    const auto found = std::find_if(children.begin(), children.end(), [&](const auto& c) { return c->name == wanted; });
    if (found != children.end()) return found->get();
    auto made = std::make_unique<Node>();
    made->name = wanted;
    made->path = path + u'/' + wanted;
    made->parent = this;
    made->row = static_cast<int>(children.size());
    children.push_back(std::move(made));
    return children.back().get();
  }
};

DatasetTreeModel::DatasetTreeModel(QObject* parent) : QAbstractItemModel(parent), root_(std::make_unique<Node>()) {}
DatasetTreeModel::~DatasetTreeModel() = default;

void DatasetTreeModel::setCapture(const CaptureInfo& info) {
  beginResetModel();
  root_ = std::make_unique<Node>();
  for (const DatasetInfo& dataset : info.datasets) {
    Node* at = root_.get();
    at->bytes += dataset.bytes_stored;
    for (const QString& part : QString::fromStdString(dataset.path).split(u'/', Qt::SkipEmptyParts)) {
      at = at->child(part);
      at->bytes += dataset.bytes_stored;
    }
    if (at == root_.get()) continue;
    QStringList extents;
    for (const std::int64_t extent : dataset.shape) extents << QString::number(extent);
    at->shape = extents.join(QStringLiteral(" × "));
    at->type = QString::fromStdString(dataset.dtype);
    at->axes = QString::fromStdString(dataset.axes);
  }
  endResetModel();
}

void DatasetTreeModel::clear() {
  beginResetModel();
  root_ = std::make_unique<Node>();
  endResetModel();
}

const DatasetTreeModel::Node* DatasetTreeModel::node(const QModelIndex& index) const {
  return index.isValid() ? static_cast<const Node*>(index.internalPointer()) : root_.get();
}

QModelIndex DatasetTreeModel::indexOfPath(const QString& path) const {
  const Node* at = root_.get();
  QModelIndex found;
  for (const QString& part : path.split(u'/', Qt::SkipEmptyParts)) {
    const auto child =
        std::find_if(at->children.begin(), at->children.end(), [&](const auto& c) { return c->name == part; });
    if (child == at->children.end()) return {};
    at = child->get();
    found = index(at->row, 0, found);
  }
  return found;
}

QModelIndex DatasetTreeModel::index(int row, int column, const QModelIndex& parent) const {
  const Node* above = node(parent);
  if (row < 0 || row >= static_cast<int>(above->children.size()) || column < 0 || column >= ColumnTotal ||
      parent.column() > 0) {
    return {};
  }
  return createIndex(row, column, above->children[static_cast<std::size_t>(row)].get());
}

QModelIndex DatasetTreeModel::parent(const QModelIndex& child) const {
  if (!child.isValid()) return {};
  Node* above = node(child)->parent;
  if (above == root_.get() || above == nullptr) return {};
  return createIndex(above->row, 0, above);
}

int DatasetTreeModel::rowCount(const QModelIndex& parent) const {
  return parent.column() > 0 ? 0 : static_cast<int>(node(parent)->children.size());
}

int DatasetTreeModel::columnCount(const QModelIndex&) const { return ColumnTotal; }

QVariant DatasetTreeModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const Node* at = node(index);
  if (role == PathRole || role == Qt::ToolTipRole) return at->path;
  if (role == BytesRole) return at->bytes;
  if (role == Qt::TextAlignmentRole && index.column() == Bytes)
    return static_cast<int>(Qt::AlignRight | Qt::AlignVCenter);
  if (role != Qt::DisplayRole) return {};
  switch (index.column()) {
    case Name:
      return at->name;
    case Shape:
      return at->shape;
    case Type:
      return at->type;
    case Axes:
      return at->axes;
    case Bytes:
      return bytesText(at->bytes);
    default:
      return {};
  }
}

QVariant DatasetTreeModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (role != Qt::DisplayRole || orientation != Qt::Horizontal) return {};
  switch (section) {
    case Name:
      return tr("Dataset");
    case Shape:
      return tr("Shape");
    case Type:
      return tr("Type");
    case Axes:
      return tr("Axes");
    case Bytes:
      return tr("Stored");
    default:
      return {};
  }
}

}  // namespace qs
