#pragma once

#include <QPolygonF>
#include <functional>
#include <span>

namespace qs {

/// A polyline of at most two points a pixel column: the lowest and highest value that fall into it, in the order in
/// which they come. Values that are not finite break nothing and are skipped.
/// @param x_of     device x of index i; must not decrease
/// @param y_of     device y of a value
/// @param column   width of a column in device units, 1 on screen
QPolygonF decimated_line(std::span<const float> values, const std::function<double(std::size_t)>& x_of,
                         const std::function<double(float)>& y_of, double column = 1.0);

}  // namespace qs
