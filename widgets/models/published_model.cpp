#include "widgets/models/published_model.h"

#include <QFont>
#include <QGuiApplication>
#include <QPalette>

namespace qs {
namespace {

QString text(const std::string& utf8) { return QString::fromStdString(utf8); }

}  // namespace

PublishedModel::PublishedModel(QObject* parent) : QAbstractTableModel(parent) {}

void PublishedModel::setNumbers(std::vector<PublishedNumber> numbers) {
  beginResetModel();
  numbers_ = std::move(numbers);
  endResetModel();
}

int PublishedModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(numbers_.size());
}

int PublishedModel::columnCount(const QModelIndex& parent) const { return parent.isValid() ? 0 : ColumnTotal; }

QVariant PublishedModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const PublishedNumber& number = at(index.row());
  if (role == Qt::DisplayRole) {
    switch (index.column()) {
      case Label:
        return text(number.label);
      case Model:
        return text(number.model);
      case Quantity:
        return text(quantity_text(number));
      case Value:
        return text(value_text(number)) + (number.secondary ? tr(" (unchecked)") : QString());
      case FullPrecision:
        return number.baseline ? text(format_value(*number.baseline)) : QString();
      default:
        return text(number.source);
    }
  }
  if (role == Qt::EditRole) {
    if (index.column() == Value) return number.value;
    if (index.column() == FullPrecision && number.baseline) return *number.baseline;
    return data(index, Qt::DisplayRole);
  }
  if (role == Qt::ToolTipRole) {
    QStringList lines = {tr("Published, measured elsewhere: %1").arg(text(number.source))};
    if (!number.setting.empty()) lines << text(number.setting);
    if (!number.note.empty()) lines << text(number.note);
    if (!number.setup.empty()) lines << tr("Here: %1").arg(text(number.setup));
    if (number.secondary) lines << tr("Taken from a summary and not checked against the source itself.");
    return lines.join(u'\n');
  }
  if (role == Qt::TextAlignmentRole) {
    const bool right = index.column() == Value || index.column() == FullPrecision;
    return static_cast<int>((right ? Qt::AlignRight : Qt::AlignLeft) | Qt::AlignVCenter);
  }
  if (role == Qt::ForegroundRole && number.secondary)
    return QGuiApplication::palette().brush(QPalette::Disabled, QPalette::Text);
  if (role == Qt::FontRole && number.secondary) {
    QFont font = QGuiApplication::font();
    font.setItalic(true);
    return font;
  }
  return {};
}

QVariant PublishedModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (orientation == Qt::Vertical || role != Qt::DisplayRole) return {};
  switch (section) {
    case Label:
      return tr("Published as");
    case Model:
      return tr("Model");
    case Quantity:
      return tr("Quantity");
    case Value:
      return tr("Value");
    case FullPrecision:
      return tr("Full precision");
    default:
      return tr("Source");
  }
}

}  // namespace qs
