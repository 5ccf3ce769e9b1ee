#include "widgets/flow_layout.h"

#include <QStyle>
#include <QWidget>
#include <algorithm>

namespace qs {

QList<FlowLayout::Row> FlowLayout::rows(int width) const {
  QList<Row> result;
  const int gap = std::max(0, spacing());
  int used = 0;
  for (int i = 0; i < count(); ++i) {
    QLayoutItem* item = itemAt(i);
    if (item->isEmpty() && !item->spacerItem()) continue;
    const bool grows = item->expandingDirections() & Qt::Horizontal || stretch(i) > 0;
    const int least = item->minimumSize().width();
    // What grows begins small, so that it ends on the row that it fits into.
    const int wanted = std::min(item->maximumSize().width(), grows ? least : std::max(least, item->sizeHint().width()));
    const int step = item->spacerItem() ? 0 : gap;
    if (result.isEmpty() || (!item->spacerItem() && used > 0 && used + wanted > width)) {
      result.append(Row());
      used = 0;
    }
    Cell cell{item, std::max(least, std::min(wanted, width)), 0, grows};
    cell.height = item->hasHeightForWidth() ? item->heightForWidth(cell.width) : item->sizeHint().height();
    result.last().height = std::max(result.last().height, cell.height);
    result.last().cells.append(cell);
    used += cell.width + step;
  }
  for (Row& row : result) {
    int left = width, growing = 0;
    for (const Cell& cell : row.cells) {
      left -= cell.width + (cell.item->spacerItem() || cell.item == row.cells.last().item ? 0 : gap);
      growing += cell.grows;
    }
    for (Cell& cell : row.cells) {
      if (left <= 0 || growing == 0 || !cell.grows) continue;
      const int more = std::min(left / growing, cell.item->maximumSize().width() - cell.width);
      cell.width += more;
      left -= more;
      --growing;
    }
  }
  return result;
}

int FlowLayout::heightForWidth(int width) const {
  const QMargins margins = contentsMargins();
  int height = margins.top() + margins.bottom();
  const QList<Row> all = rows(width - margins.left() - margins.right());
  for (const Row& row : all) height += row.height;
  return height + std::max(0, spacing()) * int(std::max<qsizetype>(0, all.size() - 1));
}

QSize FlowLayout::minimumSize() const {
  QSize size;
  for (int i = 0; i < count(); ++i) {
    if (!itemAt(i)->isEmpty()) size = size.expandedTo(itemAt(i)->minimumSize());
  }
  const QMargins margins = contentsMargins();
  return size + QSize(margins.left() + margins.right(), margins.top() + margins.bottom());
}

void FlowLayout::setGeometry(const QRect& rect) {
  QLayout::setGeometry(rect);
  const QRect inner = rect.marginsRemoved(contentsMargins());
  const int gap = std::max(0, spacing());
  const QWidget* widget = parentWidget();
  const Qt::LayoutDirection direction = widget ? widget->layoutDirection() : Qt::LeftToRight;
  int y = inner.top();
  for (const Row& row : rows(inner.width())) {
    int x = inner.left();
    for (const Cell& cell : row.cells) {
      const int height = std::min(row.height, cell.height);
      const QRect place(x, y + (row.height - height) / 2, cell.width, height);
      cell.item->setGeometry(QStyle::visualRect(direction, inner, place));
      x += cell.width + (cell.item->spacerItem() ? 0 : gap);
    }
    y += row.height + gap;
  }
}

}  // namespace qs
