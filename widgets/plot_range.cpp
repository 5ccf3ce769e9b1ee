#include "widgets/plot_range.h"

#include <algorithm>
#include <cmath>

#include "widgets/plot_view.h"

namespace qs {

double PlotRange::fraction(double value) const {
  if (!log) return (value - low) / (high - low);
  const double v = std::max(value, floor);
  return (std::log10(v) - std::log10(low)) / (std::log10(high) - std::log10(low));
}

double PlotRange::value(double fraction) const {
  if (!log) return low + fraction * (high - low);
  return std::pow(10.0, std::log10(low) + fraction * (std::log10(high) - std::log10(low)));
}

void PlotExtent::add(double value) {
  if (!std::isfinite(value)) return;
  low = std::min(low, value);
  high = std::max(high, value);
  if (value > 0.0) smallestPositive = std::min(smallestPositive, value);
}

double plotStep(double span, int wanted) {
  const double raw = span / std::max(1, wanted), power = std::pow(10.0, std::floor(std::log10(raw)));
  const double unit = raw / power;
  return power * (unit <= 1.0 ? 1.0 : unit <= 2.0 ? 2.0 : unit <= 5.0 ? 5.0 : 10.0);
}

void fitLogAxis(PlotAxis& axis, const PlotExtent& extent) {
  const double low = extent.smallestPositive, high = extent.high;
  if (!std::isfinite(low) || !std::isfinite(high)) return;
  const double below = std::pow(10.0, std::floor(std::log10(low))),
               above = std::pow(10.0, std::floor(std::log10(high)));
  axis.low = below / 2.0;
  axis.high = above * 20.0;
  for (const double unit : {1.0, 2.0, 5.0}) {
    if (unit * below <= low * 0.97) axis.low = unit * below;
  }
  for (const double unit : {10.0, 5.0, 2.0, 1.0}) {
    if (unit * above >= high * 1.03) axis.high = unit * above;
  }
  const double decade = std::pow(10.0, std::ceil(std::log10(axis.low) - 1e-9));
  if (decade > axis.high * (1.0 + 1e-9)) axis.low = decade / 10.0;
}

PlotRange plotRange(const PlotAxis& axis, PlotExtent extent, bool padded) {
  PlotRange range;
  if (extent.low > extent.high) extent.low = 0.0, extent.high = 1.0, extent.smallestPositive = 1.0;
  if (axis.log) {
    range.log = true;
    if (!std::isfinite(extent.smallestPositive)) extent.smallestPositive = 1.0, extent.high = 10.0;
    const double low = std::isfinite(axis.low) && axis.low > 0 ? axis.low : extent.smallestPositive;
    const double high = std::isfinite(axis.high) && axis.high > 0 ? axis.high : std::max(extent.high, low);
    range.low = std::isfinite(axis.low) && axis.low > 0 ? axis.low : std::pow(10.0, std::floor(std::log10(low) + 1e-9));
    range.high =
        std::isfinite(axis.high) && axis.high > 0 ? axis.high : std::pow(10.0, std::ceil(std::log10(high) - 1e-9));
    if (range.high <= range.low) range.high = range.low * 10.0;
    if (extent.low <= 0.0) range.low /= 10.0;
    range.floor = range.low;
    return range;
  }
  range.low = std::isfinite(axis.low) ? axis.low : extent.low;
  range.high = std::isfinite(axis.high) ? axis.high : extent.high;
  if (range.high <= range.low) {
    const double pad = std::max(1e-9, std::abs(range.low) * 0.05);
    range.low -= pad;
    range.high += pad;
  } else if (padded) {
    const double pad = 0.06 * (range.high - range.low);
    if (!std::isfinite(axis.low)) range.low = extent.low >= 0.0 && extent.low - pad < 0.0 ? 0.0 : extent.low - pad;
    if (!std::isfinite(axis.high)) range.high += pad;
  }
  return range;
}

}  // namespace qs
