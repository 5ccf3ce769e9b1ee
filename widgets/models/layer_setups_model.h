#pragma once

#include <QAbstractTableModel>
#include <QString>
#include <vector>

namespace qs {

/// What one layer of a plan has.
struct LayerSetupRow {
  QString method, line;  ///< title and setup line; an empty line is full precision
  double bits = 16.0;
  QString issue;  ///< why the setup does not fit the layer; empty when it does
  bool operator==(const LayerSetupRow&) const = default;
};

/// Layers as rows: method, setup line, effective bits, and what is wrong.
class LayerSetupsModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  enum Column { Method, Bits, Line, Issue, ColumnTotal };
  explicit LayerSetupsModel(QObject* parent = nullptr);

  /// Keeps the selection of views: rows are replaced one by one when their count stays.
  void setRows(std::vector<LayerSetupRow> rows);
  const std::vector<LayerSetupRow>& rows() const { return rows_; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  std::vector<LayerSetupRow> rows_;
};

}  // namespace qs
