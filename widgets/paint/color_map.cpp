#include "widgets/paint/color_map.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace qs {
namespace {

struct Lab {
  double l = 0.0, a = 0.0, b = 0.0;
};

double to_linear(double c) { return c <= 0.04045 ? c / 12.92 : std::pow((c + 0.055) / 1.055, 2.4); }
double from_linear(double c) {
  c = std::clamp(c, 0.0, 1.0);
  return c <= 0.0031308 ? c * 12.92 : 1.055 * std::pow(c, 1.0 / 2.4) - 0.055;
}

Lab to_lab(QRgb color) {
  const double r = to_linear(qRed(color) / 255.0), g = to_linear(qGreen(color) / 255.0),
               b = to_linear(qBlue(color) / 255.0);
  const double l = std::cbrt(0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b);
  const double m = std::cbrt(0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b);
  const double s = std::cbrt(0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b);
  return {0.2104542553 * l + 0.7936177850 * m - 0.0040720468 * s,
          1.9779984951 * l - 2.4285922050 * m + 0.4505937099 * s,
          0.0259040371 * l + 0.7827717662 * m - 0.8086757660 * s};
}

QRgb to_rgb(const Lab& c) {
  const auto cube = [](double x) { return x * x * x; };
  const double l = cube(c.l + 0.3963377774 * c.a + 0.2158037573 * c.b);
  const double m = cube(c.l - 0.1055613458 * c.a - 0.0638541728 * c.b);
  const double s = cube(c.l - 0.0894841775 * c.a - 1.2914855480 * c.b);
  const auto byte = [](double v) { return static_cast<int>(std::lround(from_linear(v) * 255.0)); };
  return qRgb(byte(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
              byte(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
              byte(-0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s));
}

double distance(const Lab& x, const Lab& y) {
  return std::sqrt((x.l - y.l) * (x.l - y.l) + (x.a - y.a) * (x.a - y.a) + (x.b - y.b) * (x.b - y.b));
}

Lab between(const Lab& x, const Lab& y, double t) {
  return {x.l + t * (y.l - x.l), x.a + t * (y.a - x.a), x.b + t * (y.b - x.b)};
}

/// A smooth curve through the control colours (Catmull-Rom in Oklab), sampled finely.
std::vector<Lab> curve(const std::vector<QRgb>& controls, bool smooth) {
  std::vector<Lab> points, out;
  for (const QRgb c : controls) points.push_back(to_lab(c));
  constexpr int kFine = 200;
  const auto at = [&](std::ptrdiff_t i) {
    return points[static_cast<std::size_t>(
        std::clamp<std::ptrdiff_t>(i, 0, static_cast<std::ptrdiff_t>(points.size()) - 1))];
  };
  for (std::ptrdiff_t i = 0; i + 1 < static_cast<std::ptrdiff_t>(points.size()); ++i) {
    for (int k = 0; k < kFine; ++k) {
      const double t = static_cast<double>(k) / kFine;
      if (!smooth) {
        out.push_back(between(at(i), at(i + 1), t));
        continue;
      }
      const auto spline = [&](double Lab::*m) {
        const double p0 = at(i - 1).*m, p1 = at(i).*m, p2 = at(i + 1).*m, p3 = at(i + 2).*m;
        return 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t * t +
                      (3 * p1 - p0 - 3 * p2 + p3) * t * t * t);
      };
      out.push_back({spline(&Lab::l), spline(&Lab::a), spline(&Lab::b)});
    }
  }
  out.push_back(points.back());
  return out;
}

void resample(const std::vector<Lab>& fine, QRgb* out, int count) {
  std::vector<double> length(fine.size(), 0.0);
  for (std::size_t i = 1; i < fine.size(); ++i) length[i] = length[i - 1] + distance(fine[i - 1], fine[i]);
  std::size_t j = 0;
  for (int i = 0; i < count; ++i) {
    const double wanted = length.back() * i / (count - 1);
    while (j + 2 < fine.size() && length[j + 1] < wanted) ++j;
    const double step = length[j + 1] - length[j];
    out[i] = to_rgb(between(fine[j], fine[j + 1], step > 0 ? std::clamp((wanted - length[j]) / step, 0.0, 1.0) : 0.0));
  }
}

}  // namespace

double oklab_lightness(QRgb color) { return to_lab(color).l; }
double oklab_distance(QRgb a, QRgb b) { return distance(to_lab(a), to_lab(b)); }

const ColorMap& ColorMap::get(MapName name) {
  static const std::array<ColorMap, 4> all = [] {
    std::array<ColorMap, 4> maps;
    resample(curve({0xff41085a, 0xff443a83, 0xff31678f, 0xff21918c, 0xff38b977, 0xff90d743, 0xfff9e626}, true),
             maps[0].lut_.data(), 256);
    resample(curve({0xff00234f, 0xff3b496d, 0xff717275, 0xffa79d74, 0xfffde73a}, true), maps[1].lut_.data(), 256);
    resample(curve({0xff0a0a0a, 0xfff6f6f6}, false), maps[2].lut_.data(), 256);
    // Both arms run from white and end equally dark, so that +x and -x look equally strong.
    std::array<QRgb, 128> arm{};
    resample(curve({0xfff7f7f7, 0xff9cc4e4, 0xff3c86c6, 0xff08427e}, true), arm.data(), 128);
    for (int i = 0; i < 128; ++i) maps[3].lut_[static_cast<std::size_t>(127 - i)] = arm[static_cast<std::size_t>(i)];
    resample(curve({0xfff7f7f7, 0xfff6b97c, 0xffd9772a, 0xff823600}, true), arm.data(), 128);
    for (int i = 0; i < 128; ++i) maps[3].lut_[static_cast<std::size_t>(128 + i)] = arm[static_cast<std::size_t>(i)];
    return maps;
  }();
  return all[static_cast<std::size_t>(name)];
}

MapName ColorMap::fromId(const QString& id) {
  for (const MapName name : {MapName::Cividis, MapName::Grey, MapName::Diverging})
    if (ColorMap::id(name) == id) return name;
  return MapName::Viridis;
}

QString ColorMap::id(MapName name) {
  switch (name) {
    case MapName::Viridis:
      return QStringLiteral("viridis");
    case MapName::Cividis:
      return QStringLiteral("cividis");
    case MapName::Grey:
      return QStringLiteral("grey");
    case MapName::Diverging:
      return QStringLiteral("diverging");
  }
  return {};
}

QRgb ColorMap::color(double position) const {
  return at(static_cast<int>(std::lround(std::clamp(position, 0.0, 1.0) * 255.0)));
}

}  // namespace qs
