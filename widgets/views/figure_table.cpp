#include "widgets/views/figure_table.h"

#include <algorithm>
#include <cmath>

#include "widgets/paint/heatmap_panel.h"
#include "widgets/paint/line_panel.h"

namespace qs {

void FigureTable::setContent(Content content) {
  beginResetModel();
  content_ = std::move(content);
  endResetModel();
}

QVariant FigureTable::data(const QModelIndex& index, int role) const {
  if (!index.isValid() || !content_.cell) return {};
  if (role == Qt::EditRole) return content_.cell(index.row(), index.column());
  if (role == Qt::TextAlignmentRole && index.column() > 0) return QVariant(Qt::AlignRight | Qt::AlignVCenter);
  if (role != Qt::DisplayRole) return {};
  const QVariant value = content_.cell(index.row(), index.column());
  const bool real = value.typeId() == QMetaType::Double || value.typeId() == QMetaType::Float;
  return real ? QVariant(QString::number(value.toDouble(), 'g', 6)) : value;
}

QVariant FigureTable::headerData(int section, Qt::Orientation orientation, int role) const {
  if (role != Qt::DisplayRole) return {};
  if (orientation == Qt::Vertical) return section + 1;
  return content_.header && section >= 0 && section < content_.columns ? QVariant(content_.header(section))
                                                                       : QVariant();
}

FigureTable::Content heatmap_table(const HeatmapPanel& panel) {
  FigureTable::Content content;
  const auto data = panel.data();
  const QRectF v = panel.viewport();
  const auto tile = panel.tileCovers(v) ? panel.tile() : nullptr;
  if (!data || (!data->exact() && !tile)) return content;
  const auto top = static_cast<std::int64_t>(std::floor(v.top())),
             left = static_cast<std::int64_t>(std::floor(v.left()));
  const auto name = [](const PanelAxis& axis, std::int64_t i) {
    return axis.label ? axis.label(i) : QString::number(i);
  };
  content.rows = static_cast<int>(std::min<double>(std::ceil(v.bottom()), static_cast<double>(data->rows)) -
                                  static_cast<double>(top));
  content.columns = 1 + static_cast<int>(std::min<double>(std::ceil(v.right()), static_cast<double>(data->cols)) -
                                         static_cast<double>(left));
  content.header = [x = panel.x, y = panel.y, unit = panel.valueTitle, name, left](int c) {
    return c == 0 ? QStringLiteral("%1 \\ %2 (%3)").arg(y.title, x.title, unit) : name(x, left + c - 1);
  };
  content.cell = [data, tile, y = panel.y, name, top, left](int r, int c) {
    if (c == 0) return QVariant(name(y, top + r));
    return QVariant(data->exact() ? data->at(top + r, left + c - 1) : tile->at(top + r, left + c - 1));
  };
  return content;
}

FigureTable::Content line_table(const LinePanel& panel) {
  FigureTable::Content content;
  if (panel.isEmpty()) return content;
  content.rows = static_cast<int>(panel.series.front().y.size());
  content.columns = 1 + static_cast<int>(panel.series.size());
  content.header = [x = panel.xTitle, y = panel.yTitle, series = panel.series](int c) {
    return c == 0 ? x : QStringLiteral("%1 (%2)").arg(series[static_cast<std::size_t>(c - 1)].name, y);
  };
  content.cell = [series = panel.series](int r, int c) {
    const auto row = static_cast<std::size_t>(r);
    if (c == 0) return QVariant(series.front().x.empty() ? static_cast<double>(r) : series.front().x[row]);
    const auto& values = series[static_cast<std::size_t>(c - 1)].y;
    return row < values.size() ? QVariant(values[row]) : QVariant();
  };
  return content;
}

}  // namespace qs
