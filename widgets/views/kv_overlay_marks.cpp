#include "widgets/views/kv_overlay_marks.h"

#include <QCoreApplication>
#include <algorithm>

#include "widgets/paint/axes.h"

namespace qs {
namespace {

QString tr(const char* text) { return QCoreApplication::translate("KvOverlay", text); }

/// Channels of the smallest and of the largest run that holds any.
std::pair<std::int64_t, std::int64_t> run_lengths(const KvOverlay& overlay) {
  const auto& starts = overlay.groups.starts;
  std::int64_t smallest = overlay.channels(), largest = 0;
  for (std::size_t i = 0; i < starts.size(); ++i) {
    const std::int64_t length = (i + 1 < starts.size() ? starts[i + 1] : overlay.channels()) - starts[i];
    if (length == 0) continue;
    smallest = std::min(smallest, length);
    largest = std::max(largest, length);
  }
  return {smallest, largest};
}

std::vector<double> channel_borders(const KvOverlay& overlay, bool in_order) {
  std::vector<double> borders;
  const auto run = [&](std::int64_t place) {
    const std::int64_t channel = in_order ? overlay.groups.order[static_cast<std::size_t>(place)] : place;
    return overlay.run_of_channel[static_cast<std::size_t>(channel)];
  };
  for (std::int64_t place = 1; place < overlay.channels(); ++place)
    if (run(place) != run(place - 1)) borders.push_back(static_cast<double>(place));
  return borders;
}

}  // namespace

QString groups_text(const KvOverlay& overlay) {
  if (overlay.channel_runs == 0) return {};
  const auto [smallest, largest] = run_lengths(overlay);
  const QString tokens = overlay.groups.tokens == 0   ? tr("all tokens")
                         : overlay.groups.tokens == 1 ? tr("1 token")
                                                      : tr("%1 tokens").arg(overlay.groups.tokens);
  const QString channels = smallest == largest ? (largest == 1 ? tr("1 channel") : tr("%1 channels").arg(largest))
                                               : tr("%1 to %2 channels").arg(smallest).arg(largest);
  return tr("a scale for %1 × %2").arg(tokens, channels);
}

const std::vector<std::int64_t>& channel_order(const KvOverlayPtr& overlay) {
  static const std::vector<std::int64_t> none;
  return overlay ? overlay->groups.order : none;
}

void show_overlay(HeatmapPanel& panel, const KvOverlayPtr& overlay, const OverlayMarks& marks) {
  panel.bands.clear();
  panel.marks.clear();
  for (PanelAxis* axis : {&panel.x, &panel.y}) {
    axis->groups.clear();
    axis->groupsTitle.clear();
  }
  if (!overlay || panel.rows() != overlay->tokens || panel.cols() != overlay->channels()) return;
  const KvOverlay& o = *overlay;
  const bool in_order = marks.in_order && !o.groups.order.empty();
  if (marks.groups && o.channel_runs > 0) {
    panel.x.groups = channel_borders(o, in_order);
    // Behind a token selection the runs of a head are in its own slots, which no line across all heads can show.
    if (o.groups.tokens > 1 && o.slots.empty())
      for (std::int64_t at = o.groups.tokens; at < o.tokens; at += o.groups.tokens)
        panel.y.groups.push_back(static_cast<double>(at));
    panel.x.groupsTitle = groups_text(o);
  }
  if (marks.window) {
    if (o.quantized_end <= o.quantized_begin) {
      panel.bands.push_back({true, 0.0, static_cast<double>(o.tokens), tr("every token in full precision")});
    } else {
      if (o.quantized_begin > 0)
        panel.bands.push_back({true, 0.0, static_cast<double>(o.quantized_begin),
                               o.quantized_begin == 1
                                   ? tr("first token (sink) in full precision")
                                   : tr("first %1 tokens (sinks) in full precision").arg(o.quantized_begin),
                               PanelBand::Look::Sinks});
      if (o.quantized_end < o.tokens)
        panel.bands.push_back({true, static_cast<double>(o.quantized_end), static_cast<double>(o.tokens),
                               tr("newest %1 tokens (window) in full precision").arg(o.tokens - o.quantized_end)});
    }
  }
  if (marks.evicted && !o.kept.empty()) {
    PanelMarks evicted;
    evicted.look = PanelMarks::Look::Hatched;
    evicted.label = tr("evicted, %1 % of the tokens")
                        .arg(number_text(100.0 * static_cast<double>(o.evicted_tokens) /
                                             static_cast<double>(std::max<std::int64_t>(1, o.tokens * o.kv_heads)),
                                         3));
    evicted.marked = [overlay, in_order](std::int64_t token, std::int64_t column) {
      const std::int64_t channel = in_order ? overlay->groups.order[static_cast<std::size_t>(column)] : column;
      return overlay->kept.data[channel / overlay->head_dim * overlay->tokens + token] == 0.0f;
    };
    panel.marks.push_back(std::move(evicted));
  }
  if (marks.picks && !o.picks.empty()) {
    PanelMarks picks;
    picks.look = PanelMarks::Look::Picks;
    const double all = static_cast<double>(std::max<std::int64_t>(1, o.picked + o.coded));
    picks.label =
        tr("outliers kept in full precision, %1 %").arg(number_text(100.0 * static_cast<double>(o.picked) / all, 3));
    for (std::int64_t token = 0; token < o.tokens; ++token)
      for (std::int64_t column = 0; column < o.channels(); ++column) {
        const std::int64_t channel = in_order ? o.groups.order[static_cast<std::size_t>(column)] : column;
        if (o.picks.data[token * o.channels() + channel] > 0.0f) picks.cells.push_back({token, column});
      }
    panel.marks.push_back(std::move(picks));
  }
}

}  // namespace qs
