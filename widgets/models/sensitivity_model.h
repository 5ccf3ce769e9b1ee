#pragma once

#include <QAbstractTableModel>
#include <QStringList>
#include <vector>

namespace qs {

/// Layers as rows, candidate setups as columns: the loss of each layer alone under each of them. Cells are shaded by
/// the logarithm of the loss; the chosen one of a row is bold with a dot.
class SensitivityModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Role { ChosenRole = Qt::UserRole + 1 };
  explicit SensitivityModel(QObject* parent = nullptr);

  /// @param loss    [layers][candidates], nats a token
  /// @param choice  index of a candidate, by layer
  void setTable(QStringList candidates, std::vector<std::vector<double>> loss, std::vector<int> choice);
  void clear();

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  double strength(double loss) const;  ///< 0 to 1 over the losses of the table
  QStringList candidates_;
  std::vector<std::vector<double>> loss_;
  std::vector<int> choice_;
  double least_ = 0.0, most_ = 0.0;  ///< positive losses
};

}  // namespace qs
