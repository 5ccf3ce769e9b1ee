#pragma once

#include <QRgb>
#include <QString>
#include <array>

namespace qs {

enum class MapName { Viridis, Cividis, Grey, Diverging };

/// 256 colours, made from a few control colours by interpolation in the Oklab space and resampling to equal perceived
/// steps. NaN, infinities and exact zeros have colours that are in none of the maps.
class ColorMap {
 public:
  static const ColorMap& get(MapName name);
  static MapName fromId(const QString& id);  ///< "viridis" for anything unknown
  static QString id(MapName name);           ///< "viridis", "cividis", "grey", "diverging"

  QRgb at(int index) const { return lut_[static_cast<std::size_t>(index)]; }
  QRgb color(double position) const;  ///< 0..1, clamped
  const std::array<QRgb, 256>& lut() const { return lut_; }

  static constexpr QRgb kNan = 0xffff00c8;       ///< magenta
  static constexpr QRgb kInfinite = 0xffe60000;  ///< red
  static constexpr QRgb kZero = 0xffa9c3d6;      ///< pale blue-grey

 private:
  std::array<QRgb, 256> lut_{};
};

/// Perceived lightness (Oklab L, 0..1) and distance of two colours, for checks of the maps.
double oklab_lightness(QRgb color);
double oklab_distance(QRgb a, QRgb b);

}  // namespace qs
