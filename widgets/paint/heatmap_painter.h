#pragma once

#include <QImage>
#include <QRectF>
#include <QSize>

#include "analysis/color_scale.h"
#include "analysis/tile_pyramid.h"
#include "widgets/paint/color_map.h"

namespace qs {

/// How cells that share a pixel become one. Extreme takes the value farthest from zero.
enum class PixelPool { Max, Mean, Extreme };

struct HeatmapRender {
  const analysis::TilePyramid* data = nullptr;
  analysis::ColorScale scale;
  MapName map = MapName::Viridis;
  PixelPool pool = PixelPool::Max;
  bool causal = false;    ///< cells right of the diagonal are transparent
  bool mark_zero = true;  ///< exact zeros get their own colour; off for signed data
  /// Drawn instead of the levels of `data` where it holds the whole viewport; may be null.
  const analysis::ExactTile* tile = nullptr;
  std::int64_t diagonal = 0;  ///< column minus row of the first cell of `data`, for `causal`
};

/// The colour of one exact value.
QRgb heatmap_color(const HeatmapRender& render, float value);

/// An image of the cells in `viewport` (x: columns, y: rows, in cells) at `size` pixels: nearest neighbour when a cell
/// is larger than a pixel, pooled from the fitting level of the pyramid when it is smaller. Bands of rows are drawn by
/// several threads; the result does not depend on how many there are.
/// @param factor_used  receives the factor of the level that was drawn
QImage render_heatmap(const HeatmapRender& render, const QRectF& viewport, const QSize& size,
                      std::int64_t* factor_used = nullptr);

}  // namespace qs
