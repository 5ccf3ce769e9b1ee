#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "backend/methods/affine_weight.h"
#include "backend/types/param_spec.h"
#include "backend/types/weight_run.h"

namespace qs {

/// true_sequential, nsamples, seqlen and seed: parameters of every method that runs layer by layer.
void append_layerwise_params(std::vector<ParamSpec>& params);
/// scale_dtype, store_then_quantize and compat_reference.
void append_stored_scale_params(std::vector<ParamSpec>& params);

/// "gptq:act_order=auto,bits=4,...": all parameters, so that two lines are equal only when the settings are.
std::string setup_line(const std::string& method, const ParamSet& params);

/// Says so when fewer tokens than input columns came: H then has no full rank and only damping saves it.
void note_few_tokens(LayerProgress& progress, std::int64_t in_features);

/// Proxy loss of round to nearest on the same grid, from up to 511 rows spread over the matrix.
double rounding_loss(const at::Tensor& weight, const at::Tensor& hessian, const AffineQuantizer& affine,
                     std::int64_t group_size);

}  // namespace qs
