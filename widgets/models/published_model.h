#pragma once

#include <QAbstractTableModel>
#include <vector>

#include "backend/types/published_number.h"

namespace qs {

/// Numbers of papers as rows. Those that were not checked against their source are grey and say so; the tool tip has
/// source and setting.
class PublishedModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { Label, Quantity, Value, FullPrecision, Model, Source, ColumnTotal };
  explicit PublishedModel(QObject* parent = nullptr);

  void setNumbers(std::vector<PublishedNumber> numbers);
  const PublishedNumber& at(int row) const { return numbers_[static_cast<std::size_t>(row)]; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  std::vector<PublishedNumber> numbers_;
};

}  // namespace qs
