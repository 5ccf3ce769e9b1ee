#pragma once

#include "backend/method.h"
#include "backend/types/kv_overlay.h"

namespace qs {

/// What `method` did to one tensor, as plain data. Levels are read off the codes and the values that were made of them,
/// so that they hold for every method whose values are a function of their codes.
/// @param original   f32 [kv_heads, tokens, head_dim]
/// @param quantized  as the cache holds it: elements outside the quantized tokens are marked in `full_precision`
/// @param range      tokens that are quantized
/// @param kept       bool [kv_heads, tokens]; undefined when no token was evicted. `range` is then not used
KvOverlay make_overlay(const KvMethod& method, const CacheShape& shape, KvRole role, const at::Tensor& original,
                       const QuantizedTensor& quantized, TokenRange range, const at::Tensor& kept);

}  // namespace qs
