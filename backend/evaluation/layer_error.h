#pragma once

#include <vector>

#include "backend/methods/pair_error.h"
#include "backend/model/model.h"

namespace qs {

/// One point of an alpha sweep in layer mode.
struct PairPoint {
  double alpha = 0.5;
  PairQuantizers quantizers;
};

/// Mean squared error of the outputs of every folded pair when its input is smoothed and quantized with its weights
/// (weights specification 4.5, layer mode), for all points in one go: every weight is decoded once.
/// @param calibration  with input_rows
/// @return of each point: layer * pairs + pair
/// @throws Error InvalidArgument when the calibration holds no input_rows
std::vector<std::vector<double>> pair_output_errors(const Model& model, const Calibration& calibration,
                                                    const std::vector<PairPoint>& points, const JobContext& job);

}  // namespace qs
