#pragma once

#include <QHBoxLayout>
#include <QList>

namespace qs {

/// A row of controls that continues on further rows where it is too narrow. An item is never narrower than its minimum;
/// stretches push what follows to the right while everything fits on one row.
class FlowLayout : public QHBoxLayout {
 public:
  using QHBoxLayout::QHBoxLayout;

  bool hasHeightForWidth() const override { return true; }
  int heightForWidth(int width) const override;
  int minimumHeightForWidth(int width) const override { return heightForWidth(width); }
  QSize minimumSize() const override;
  void setGeometry(const QRect& rect) override;

 private:
  struct Cell {
    QLayoutItem* item = nullptr;
    int width = 0, height = 0;
    bool grows = false;
  };
  struct Row {
    QList<Cell> cells;
    int height = 0;
  };
  QList<Row> rows(int width) const;
};

}  // namespace qs
