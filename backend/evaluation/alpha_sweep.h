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
  /// Tokens whose layer inputs are compared when the calibration holds none (Calibration::input_rows): costs a pass.
  std::vector<std::int64_t> calibration_ids;
};

/// SmoothQuant alpha sweep (weights specification 4.5), each point from the original weights. Layer errors come first,
/// for all points together, and without a forward pass when the calibration holds the inputs.
/// @param known     points already computed for the same protocol; returned as Cached without running them
/// @param on_point  called after each point with the result so far; a cancelled sweep has reported all finished points
AlphaSweepResult alpha_sweep(std::shared_ptr<const Model> model, const Calibration& calibration,
                             const AlphaSweepRequest& request, const AlphaSweepResult* known,
                             const std::function<void(const AlphaSweepResult&)>& on_point, const JobContext& job);

/// The setup that gives each layer the alpha with the least layer error of its pairs together: one line, per layer.
/// @return empty when no point has layer errors
std::string best_alpha_setup(const AlphaScheme& scheme, std::int64_t layers);

/// Channel maxima of every folded pair, for the live migration plot.
std::vector<MigrationInput> migration_inputs(const Model& model, const Calibration& calibration);

}  // namespace qs
