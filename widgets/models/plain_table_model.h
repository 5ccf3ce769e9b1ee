#pragma once

#include <QAbstractTableModel>
#include <QStringList>
#include <QVariant>
#include <QVector>

namespace qs {

/// Headers and rows of numbers or texts: the data table twin of a figure. Qt::DisplayRole gives numbers with six
/// significant digits in the C locale, Qt::EditRole the stored value in full.
class PlainTableModel : public QAbstractTableModel {
  Q_OBJECT
 public:
  using Row = QVector<QVariant>;  ///< double, integer, QString, or an invalid QVariant for "no value"
  explicit PlainTableModel(QObject* parent = nullptr);

  /// Replaces everything. Rows shorter than `headers` are filled with empty cells; longer ones are cut.
  void setTable(QStringList headers, QVector<Row> rows);
  void setHeaders(QStringList headers);
  void appendRow(Row row);
  void clear();
  const QStringList& headers() const { return headers_; }

  int rowCount(const QModelIndex& parent = {}) const override;
  int columnCount(const QModelIndex& parent = {}) const override;
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  QStringList headers_;
  QVector<Row> rows_;
};

}  // namespace qs
