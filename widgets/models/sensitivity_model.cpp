#include "widgets/models/sensitivity_model.h"

#include <QColor>
#include <QFont>
#include <QGuiApplication>
#include <QPalette>
#include <algorithm>
#include <cmath>

namespace qs {

SensitivityModel::SensitivityModel(QObject* parent) : QAbstractTableModel(parent) {}

void SensitivityModel::setTable(QStringList candidates, std::vector<std::vector<double>> loss,
                                std::vector<int> choice) {
  beginResetModel();
  candidates_ = std::move(candidates);
  loss_ = std::move(loss);
  choice_ = std::move(choice);
  least_ = most_ = 0.0;
  for (const std::vector<double>& row : loss_) {
    for (const double value : row) {
      if (!(value > 0.0) || !std::isfinite(value)) continue;
      least_ = least_ > 0.0 ? std::min(least_, value) : value;
      most_ = std::max(most_, value);
    }
  }
  endResetModel();
}

void SensitivityModel::clear() { setTable({}, {}, {}); }

double SensitivityModel::strength(double loss) const {
  if (!(loss > 0.0) || !(most_ > least_)) return 0.0;
  return std::clamp(std::log(loss / least_) / std::log(most_ / least_), 0.0, 1.0);
}

int SensitivityModel::rowCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(loss_.size());
}

int SensitivityModel::columnCount(const QModelIndex& parent) const {
  return parent.isValid() ? 0 : static_cast<int>(candidates_.size());
}

QVariant SensitivityModel::data(const QModelIndex& index, int role) const {
  if (!checkIndex(index, CheckIndexOption::IndexIsValid)) return {};
  const double loss = loss_[std::size_t(index.row())][std::size_t(index.column())];
  const bool chosen = choice_[std::size_t(index.row())] == index.column();
  switch (role) {
    case Qt::DisplayRole:
      return (chosen ? QStringLiteral("● ") : QString()) + QString::number(loss, 'g', 3);
    case Qt::EditRole:
      return loss;
    case ChosenRole:
      return chosen;
    case Qt::TextAlignmentRole:
      return static_cast<int>(Qt::AlignRight | Qt::AlignVCenter);
    case Qt::ToolTipRole:
      return (chosen ? tr("Chosen for layer %1: %2") : tr("Layer %1 alone under %2"))
                 .arg(index.row())
                 .arg(candidates_[index.column()]) +
             u'\n' + tr("KL divergence %1 nats a token, the other layers in 16 bits").arg(loss, 0, 'g', 6);
    case Qt::FontRole: {
      QFont font = QGuiApplication::font();
      font.setBold(chosen);
      return font;
    }
    case Qt::BackgroundRole: {
      // Shading stays pale enough for the text of either theme.
      const QPalette palette = QGuiApplication::palette();
      const QColor base = palette.color(QPalette::Base), full = palette.color(QPalette::Highlight);
      const double share = 0.45 * strength(loss);
      const auto mix = [share](int from, int to) { return int(std::lround(from + (to - from) * share)); };
      return QColor(mix(base.red(), full.red()), mix(base.green(), full.green()), mix(base.blue(), full.blue()));
    }
    default:
      return {};
  }
}

QVariant SensitivityModel::headerData(int section, Qt::Orientation orientation, int role) const {
  if (role == Qt::DisplayRole && orientation == Qt::Vertical) return tr("layer %1").arg(section);
  if (role == Qt::DisplayRole || role == Qt::ToolTipRole) {
    if (orientation == Qt::Horizontal && section < candidates_.size()) return candidates_[section];
  }
  return {};
}

}  // namespace qs
