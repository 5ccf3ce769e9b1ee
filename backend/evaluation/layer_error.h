#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "backend/method.h"
#include "backend/model/model.h"
#include "backend/types/setup.h"

namespace qs {

/// Inputs of the folded pairs of every layer in full precision: layer * 2 + pair, f32 [tokens, hidden_size]. At most
/// 512 tokens.
std::vector<at::Tensor> pair_inputs(const Model& model, const std::vector<std::int64_t>& ids, const JobContext& job);

/// Mean squared error of the outputs of every folded pair when its input is smoothed and quantized with its weights
/// (weights specification 4.5, layer mode): layer * 2 + pair.
/// @param inputs  from pair_inputs
std::vector<double> pair_output_errors(const Model& model, const Calibration& calibration, const Setup& smoothquant,
                                       const std::vector<at::Tensor>& inputs, const JobContext& job);

}  // namespace qs
