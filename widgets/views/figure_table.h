#pragma once

#include <QAbstractTableModel>
#include <QVariant>
#include <functional>

namespace qs {

/// The table twin of a plot. Cells are asked for when they are looked at, so a slice of any size costs nothing.
class FigureTable : public QAbstractTableModel {
  Q_OBJECT
 public:
  struct Content {
    int rows = 0, columns = 0;
    std::function<QString(int)> header;
    std::function<QVariant(int, int)> cell;  ///< float, double, integer or text
  };
  using QAbstractTableModel::QAbstractTableModel;
  void setContent(Content content);
  int rowCount(const QModelIndex& parent = {}) const override { return parent.isValid() ? 0 : content_.rows; }
  int columnCount(const QModelIndex& parent = {}) const override { return parent.isValid() ? 0 : content_.columns; }
  QVariant data(const QModelIndex& index, int role = Qt::DisplayRole) const override;
  QVariant headerData(int section, Qt::Orientation orientation, int role = Qt::DisplayRole) const override;

 private:
  Content content_;
};

class HeatmapPanel;
class LinePanel;

/// The cells in sight; nothing while only pooled ones are known.
FigureTable::Content heatmap_table(const HeatmapPanel& panel);
FigureTable::Content line_table(const LinePanel& panel);

}  // namespace qs
