#include "widgets/paint/line_painter.h"

#include <cmath>

namespace qs {

QPolygonF decimated_line(std::span<const float> values, const std::function<double(std::size_t)>& x_of,
                         const std::function<double(float)>& y_of, double column) {
  QPolygonF line;
  std::size_t i = 0;
  while (i < values.size()) {
    const double bin = std::floor(x_of(i) / column);
    std::size_t lowest = values.size(), highest = values.size(), count = 0;
    for (; i < values.size() && std::floor(x_of(i) / column) == bin; ++i) {
      if (!std::isfinite(values[i])) continue;
      ++count;
      if (lowest == values.size() || values[i] < values[lowest]) lowest = i;
      if (highest == values.size() || values[i] > values[highest]) highest = i;
    }
    if (count == 0) continue;
    const std::size_t first = std::min(lowest, highest), second = std::max(lowest, highest);
    line << QPointF(x_of(first), y_of(values[first]));
    if (second != first) line << QPointF(x_of(second), y_of(values[second]));
  }
  return line;
}

}  // namespace qs
