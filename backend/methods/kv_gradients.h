#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "backend/types/job.h"

namespace qs {

class Model;

/// What one layer's projections gave for a sequence and how the language-model loss depends on it.
struct ProjectionGradients {
  at::Tensor key_pre_rope, value;           ///< [kv_heads, tokens, head_dim]
  at::Tensor key_gradient, value_gradient;  ///< f32, of the same
};

/// Gradients of the summed next-token loss of a sequence (natural logarithm) with respect to keys before rotation and
/// values, one entry a layer. The squares are the diagonal empirical Fisher information (KV specification 8.5, step 1).
/// @throws Error InvalidArgument for fewer than two tokens
std::vector<ProjectionGradients> projection_gradients(const Model& model, const std::vector<std::int64_t>& ids,
                                                      const JobContext& job);

}  // namespace qs
