#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/types/weight_run.h"

namespace qs::analysis {

/// How far a layer-by-layer run is.
struct RunSummary {
  std::int64_t done = 0, total = 0;  ///< linears; total 0: not known yet
  std::int64_t resumed = 0;          ///< of `done`, read from a checkpoint
  std::int64_t layer = -1, layers = 0;
  double left_seconds = -1.0;   ///< -1: unknown
  double loss_ratio = 0.0;      ///< geometric mean of loss / RTN's loss; NaN when no linear has both
  std::int64_t worse = 0;       ///< linears whose loss is above RTN's
  std::int64_t fallbacks = 0;   ///< linears with a note
  double effective_bits = 0.0;  ///< mean over the linears; NaN before the first
};

/// @param linears_per_layer  0: told by the first layer once the second has begun
/// @param elapsed_seconds    since the run began, the reading of the checkpoint included
/// @param forecast_seconds   of the whole run, used until a linear was quantized; 0: none
RunSummary summarize_run(std::span<const LayerProgress> linears, std::int64_t linears_per_layer, double elapsed_seconds,
                         double forecast_seconds);

/// loss / rtn_loss; 1 when both are 0, NaN when either is not known, infinite when RTN alone is exact.
double loss_ratio(const LayerProgress& linear);

/// "self_attn.q_proj" of "layers.3.self_attn.q_proj"; the whole name when it has no layer.
std::string linear_kind(const std::string& name);

/// The kinds in the order in which they first come.
std::vector<std::string> linear_kinds(std::span<const LayerProgress> linears);

}  // namespace qs::analysis
