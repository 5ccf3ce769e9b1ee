#pragma once

#include <optional>
#include <span>
#include <vector>

#include "backend/types/generation.h"

namespace qs::analysis {

/// A reference whose two likeliest tokens are closer than this decides by a hair ("knife-edge").
inline constexpr double kKnifeEdgeMargin = 0.05;

/// Where a variant's text leaves the reference's.
struct Divergence {
  std::int64_t index = 0;         ///< generated token, from 0
  double reference_margin = 0.0;  ///< p1 - p2 of the reference there
  bool knife_edge = false;
  std::vector<TokenCandidate> reference_top, variant_top;  ///< five each, empty when one of the two had already ended
};

/// The first index at which the ids differ, or at which exactly one of two finished texts ended. Empty when they agree
/// so far.
/// @param both_ended  whether a missing token means the end of the text rather than "not generated yet"
std::optional<Divergence> first_divergence(std::span<const TokenStep> reference, std::span<const TokenStep> variant,
                                           bool both_ended);

/// p1 - p2 of a candidate list; 1 when it holds a single token and 0 when it is empty.
double top_margin(std::span<const TokenCandidate> top);

}  // namespace qs::analysis
