#pragma once

#include <functional>
#include <string>
#include <vector>

#include "backend/evaluation/evaluate.h"
#include "backend/types/eval_result.h"

namespace qs {

struct Calibration;

struct AlphaSweepRequest {
  std::vector<double> alphas;                        ///< ascending
  std::vector<std::pair<int, int>> bits = {{8, 8}};  ///< (bits_w, bits_a) of each scheme
  bool model_mode = true;                            ///< perplexity; false: layer output error only
  EvalRequest evaluation;                            ///< model mode
  std::vector<std::int64_t> calibration_ids;         ///< layer mode: tokens whose layer inputs are compared
};

/// SmoothQuant alpha sweep (weights specification 4.5), each point from the original weights.
/// @param known     points already computed for the same protocol; returned as Cached without running them
/// @param on_point  called after each point with the result so far; a cancelled sweep has reported all finished points
AlphaSweepResult alpha_sweep(std::shared_ptr<const Model> model, const Calibration& calibration,
                             const AlphaSweepRequest& request, const AlphaSweepResult* known,
                             const std::function<void(const AlphaSweepResult&)>& on_point, const JobContext& job);

/// Channel maxima of every folded pair, for the live migration plot.
std::vector<MigrationInput> migration_inputs(const Model& model, const Calibration& calibration);

}  // namespace qs
