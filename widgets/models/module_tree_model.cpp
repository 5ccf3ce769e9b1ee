#include "widgets/models/module_tree_model.h"

#include <QColor>
#include <QLocale>
#include <QStringList>
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "widgets/models/dataset_tree_model.h"
#include "widgets/paint/color_map.h"

namespace qs {
namespace {

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

/// Black or white, whichever reads better on `background`.
QColor text_on(QRgb background) { return oklab_lightness(background) > 0.6 ? Qt::black : Qt::white; }

}  // namespace

struct ModuleTreeModel::Node {
  ModuleInfo info;  ///< without children
  double value = kNone;
  Node* parent = nullptr;
  int row = 0;
  std::vector<std::unique_ptr<Node>> children;

  static std::unique_ptr<Node> of(const ModuleInfo& module, Node* parent, int row) {
    auto node = std::make_unique<Node>();
    node->info = module;
    node->info.children.clear();
    node->parent = parent;
    node->row = row;
    for (std::size_t i = 0; i < module.children.size(); ++i)
      node->children.push_back(of(module.children[i], node.get(), static_cast<int>(i)));
    return node;
  }
};

ModuleTreeModel::ModuleTreeModel(QObject* parent)
    : QAbstractItemModel(parent), root_(std::make_unique<Node>()), low_(kNone), high_(kNone) {}
ModuleTreeModel::~ModuleTreeModel() = default;

void ModuleTreeModel::setModules(const ModuleInfo& root) {
  beginResetModel();
  root_ = Node::of(root, nullptr, 0);
  fillValues(*root_);
  endResetModel();
}

void ModuleTreeModel::setColumn(ModuleColumn column) {
  beginResetModel();
  column_ = std::move(column);
  fillValues(*root_);
  endResetModel();
}

void ModuleTreeModel::fillValues(Node& node) {
  if (&node == root_.get()) {
    low_ = high_ = kNone;
    for (const double value : std::as_const(column_.values)) {
      if (!std::isfinite(value) || (column_.logarithmic && value <= 0.0)) continue;
      low_ = std::isnan(low_) ? value : std::min(low_, value);
      high_ = std::isnan(high_) ? value : std::max(high_, value);
    }
  }
  node.value = kNone;
  if (node.children.empty()) {
    node.value = column_.values.value(QString::fromStdString(node.info.path), kNone);
    return;
  }
  for (const auto& child : node.children) {
    fillValues(*child);
    if (std::isfinite(child->value))
      node.value = std::isnan(node.value) ? child->value : std::max(node.value, child->value);
  }
}

double ModuleTreeModel::position(double value) const {
  if (!std::isfinite(value) || std::isnan(low_) || (column_.logarithmic && value <= 0.0)) return kNone;
  if (high_ <= low_) return 0.5;
  if (column_.logarithmic) return std::log(value / low_) / std::log(high_ / low_);
  return (value - low_) / (high_ - low_);
}

const ModuleTreeModel::Node* ModuleTreeModel::node(const QModelIndex& index) const {
  return index.isValid() ? static_cast<const Node*>(index.internalPointer()) : root_.get();
}

QModelIndex ModuleTreeModel::index(int row, int column, const QModelIndex& parent) const {
  const Node* above = node(parent);
  if (row < 0 || row >= static_cast<int>(above->children.size()) || column < 0 || column >= ColumnTotal ||
      parent.column() > 0) {
    return {};
  }
  return createIndex(row, column, above->children[static_cast<std::size_t>(row)].get());
}

QModelIndex ModuleTreeModel::parent(const QModelIndex& child) const {
  if (!child.isValid()) return {};
  Node* above = node(child)->parent;
  return above == root_.get() || above == nullptr ? QModelIndex() : createIndex(above->row, 0, above);
}

int ModuleTreeModel::rowCount(const QModelIndex& parent) const {
  return parent.column() > 0 ? 0 : static_cast<int>(node(parent)->children.size());
}

int ModuleTreeModel::columnCount(const QModelIndex&) const { return ColumnTotal; }

QVariant ModuleTreeModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const Node* at = node(index);
  const bool statistic = index.column() == Statistic;
  switch (role) {
    case PathRole:
    case Qt::ToolTipRole:
      return QString::fromStdString(at->info.path);
    case LinearRole:
      return QString::fromStdString(at->info.linear);
    case ValueRole:
      return at->value;
    case PositionRole:
      return position(at->value);
    case Qt::TextAlignmentRole:
      return static_cast<int>((index.column() >= Parameters ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
    case Qt::BackgroundRole:
    case Qt::ForegroundRole: {
      if (!statistic || std::isnan(position(at->value))) return {};
      const QRgb color = ColorMap::get(MapName::Viridis).color(position(at->value));
      return role == Qt::BackgroundRole ? QColor(color) : text_on(color);
    }
    case Qt::DisplayRole:
      break;
    default:
      return {};
  }
  switch (index.column()) {
    case Name:
      return QString::fromStdString(at->info.name);
    case Shape: {
      QStringList extents;
      for (const std::int64_t extent : at->info.shape) extents << QString::number(extent);
      return extents.join(QStringLiteral(" × "));
    }
    case Type:
      return QString::fromStdString(at->info.dtype);
    case Parameters:
      return QLocale().toString(qlonglong(at->info.parameters));
    case Bytes:
      return bytesText(at->info.bytes);
    case Statistic:
      return std::isfinite(at->value) ? QString::number(at->value, 'g', 4) : QString();
    default:
      return {};
  }
}

QVariant ModuleTreeModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation != Qt::Horizontal) return {};
  if (role == Qt::ToolTipRole && section == Statistic) return column_.help;
  if (role != Qt::DisplayRole) return {};
  switch (section) {
    case Name:
      return tr("Module");
    case Shape:
      return tr("Shape");
    case Type:
      return tr("Type");
    case Parameters:
      return tr("Parameters");
    case Bytes:
      return tr("Stored");
    case Statistic:
      return column_.unit.isEmpty() ? column_.title : tr("%1 [%2]").arg(column_.title, column_.unit);
    default:
      return {};
  }
}

}  // namespace qs
