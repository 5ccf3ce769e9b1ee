#include "analysis/divergence.h"

#include <algorithm>

namespace qs::analysis {

double top_margin(std::span<const TokenCandidate> top) {
  if (top.empty()) return 0.0;
  return top.size() > 1 ? static_cast<double>(top[0].probability) - static_cast<double>(top[1].probability) : 1.0;
}

std::optional<Divergence> first_divergence(std::span<const TokenStep> reference, std::span<const TokenStep> variant,
                                           bool both_ended) {
  const std::size_t common = std::min(reference.size(), variant.size());
  std::size_t at = 0;
  while (at < common && reference[at].id == variant[at].id) ++at;
  if (at == common && (!both_ended || reference.size() == variant.size())) return std::nullopt;
  Divergence result;
  result.index = static_cast<std::int64_t>(at);
  if (at < reference.size()) result.reference_top = reference[at].top;
  if (at < variant.size()) result.variant_top = variant[at].top;
  result.reference_margin = top_margin(result.reference_top);
  result.knife_edge = !result.reference_top.empty() && result.reference_margin < kKnifeEdgeMargin;
  return result;
}

}  // namespace qs::analysis
