#include "analysis/color_scale.h"

#include <algorithm>
#include <cmath>

namespace qs::analysis {
namespace {

double symlog(double v, double width) {
  const double magnitude = std::fabs(v) / width;
  return std::copysign(magnitude <= 1.0 ? magnitude : 1.0 + std::log10(magnitude), v);
}

double inverse_symlog(double s, double width) {
  const double magnitude = std::fabs(s);
  return std::copysign(magnitude <= 1.0 ? magnitude * width : width * std::pow(10.0, magnitude - 1.0), s);
}

}  // namespace

double ColorScale::position(double v) const {
  if (v != v) return v;
  double t = 0.0;
  switch (kind) {
    case ScaleKind::Linear:
      t = (v - low) / (high - low);
      break;
    case ScaleKind::Log10:
      t = v > 0 ? std::log(v / low) / std::log(high / low) : 0.0;
      break;
    case ScaleKind::SymLog: {
      const double from = symlog(low, linear_width);
      t = (symlog(v, linear_width) - from) / (symlog(high, linear_width) - from);
      break;
    }
  }
  return std::clamp(t, 0.0, 1.0);
}

double ColorScale::value(double t) const {
  switch (kind) {
    case ScaleKind::Linear:
      return low + t * (high - low);
    case ScaleKind::Log10:
      return low * std::pow(high / low, t);
    case ScaleKind::SymLog: {
      const double from = symlog(low, linear_width);
      return inverse_symlog(from + t * (symlog(high, linear_width) - from), linear_width);
    }
  }
  return low;
}

ColorScale fit_scale(const PlaneSummary& summary, ScaleKind kind, RangeMode range, bool is_signed, double decades) {
  ColorScale scale;
  scale.kind = is_signed && kind == ScaleKind::Log10 ? ScaleKind::SymLog : kind;
  scale.is_signed = is_signed;
  scale.low = range == RangeMode::Percentile ? summary.low_percentile : summary.low;
  scale.high = range == RangeMode::Percentile ? summary.high_percentile : summary.high;
  if (is_signed) {
    scale.high = std::max(std::fabs(scale.low), std::fabs(scale.high));
    if (!(scale.high > 0)) scale.high = 1.0;
    scale.low = -scale.high;
  } else if (scale.kind == ScaleKind::Log10) {
    if (!(scale.high > 0)) scale.high = 1.0;
    const double lowest = scale.low > 0 ? scale.low : summary.low_positive;
    scale.low = std::max(lowest > 0 ? lowest : 0.0, scale.high * std::pow(10.0, -decades));
    if (!(scale.low < scale.high)) scale.low = scale.high / 10.0;
  } else if (!(scale.low < scale.high)) {
    const double width = scale.low == 0.0 ? 1.0 : std::fabs(scale.low) * 0.5;
    scale.high = scale.low + width;
  }
  scale.linear_width = std::max(std::fabs(scale.low), std::fabs(scale.high)) * 1e-3;
  return scale;
}

ColorScale united(const ColorScale& a, const ColorScale& b) {
  ColorScale scale = a;
  scale.low = std::min(a.low, b.low);
  scale.high = std::max(a.high, b.high);
  scale.linear_width = std::max(a.linear_width, b.linear_width);
  return scale;
}

}  // namespace qs::analysis
