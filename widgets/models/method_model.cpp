#include "widgets/models/method_model.h"

namespace qs {

namespace {

QString familyText(MethodFamily family) {
  switch (family) {
    case MethodFamily::Kv:
      return MethodModel::tr("KV cache");
    case MethodFamily::Weight:
      return MethodModel::tr("weights");
    case MethodFamily::WeightActivation:
      return MethodModel::tr("weights and activations");
  }
  return {};
}

}  // namespace

MethodModel::MethodModel(QObject* parent) : QAbstractTableModel(parent) {}

void MethodModel::setMethods(std::vector<MethodInfo> methods) {
  beginResetModel();
  methods_ = std::move(methods);
  endResetModel();
}

int MethodModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(methods_.size());
}
int MethodModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnTotal; }

QVariant MethodModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const MethodInfo& method = at(index.row());
  if (role == IdRole) return QString::fromStdString(method.id);
  if (role == Qt::ToolTipRole) {
    QString text = QString::fromStdString(method.summary);
    if (!method.citation.empty()) text += u'\n' + QString::fromStdString(method.citation);
    if (method.needs_calibration) text += u'\n' + tr("Needs a calibration text.");
    if (!method.runs_here) text += u'\n' + QString::fromStdString(method.why_not);
    return text;
  }
  if (role != Qt::DisplayRole) return {};
  switch (index.column()) {
    case Title:
      return QString::fromStdString(method.title);
    case Family:
      return familyText(method.family);
    case Paper:
      return QString::fromStdString(method.paper);
    case EffectiveBits:
      return QString::fromStdString(method.effective_bits_formula);
    case Summary:
      return QString::fromStdString(method.summary);
    default:
      return {};
  }
}

QVariant MethodModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (role != Qt::DisplayRole || orientation != Qt::Horizontal) return {};
  switch (section) {
    case Title:
      return tr("Method");
    case Family:
      return tr("Family");
    case Paper:
      return tr("Paper");
    case EffectiveBits:
      return tr("Effective bits");
    case Summary:
      return tr("Summary");
    default:
      return {};
  }
}

Qt::ItemFlags MethodModel::flags(const QModelIndex& index) const {
  const Qt::ItemFlags usual = QAbstractTableModel::flags(index);
  if (!index.isValid() || at(index.row()).runs_here) return usual;
  return usual & ~Qt::ItemIsEnabled;
}

}  // namespace qs
