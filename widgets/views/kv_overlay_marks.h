#pragma once

#include <QString>
#include <memory>

#include "backend/types/kv_overlay.h"
#include "widgets/paint/heatmap_panel.h"

namespace qs {

using KvOverlayPtr = std::shared_ptr<const KvOverlay>;

/// Which overlays a token by channel map carries.
struct OverlayMarks {
  bool groups = false, picks = false, window = false, evicted = false;
  bool in_order = false;  ///< columns stand in the method's order of channels
};

/// "a scale for 32 tokens × 1 channel"; empty when nothing has a scale.
QString groups_text(const KvOverlay& overlay);

/// Replaces the group borders, bands and marks of `panel`, whose cells are [tokens, channels] of the overlay.
/// @param overlay  null: none
void show_overlay(HeatmapPanel& panel, const KvOverlayPtr& overlay, const OverlayMarks& marks);

/// Channel at each column when columns stand in the method's order; empty when it has none.
const std::vector<std::int64_t>& channel_order(const KvOverlayPtr& overlay);

}  // namespace qs
