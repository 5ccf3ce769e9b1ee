#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "backend/types/rope_spec.h"

namespace qs {

/// Cosines and sines of some positions, computed in double and stored in f32 [tokens, 1, head_dim / 2].
struct RopeTable {
  at::Tensor cosine, sine;
};
RopeTable rope_table(const std::vector<std::int64_t>& positions, std::int64_t head_dim, const RopeSpec& rope);

/// Rotates the half-split way (KV specification 1.7) in f32. @param x  [tokens, heads, head_dim]; the result has its
/// type
at::Tensor rotate(const at::Tensor& x, const RopeTable& table);

}  // namespace qs
