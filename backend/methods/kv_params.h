#pragma once

#include <string>

#include "backend/methods/kv_groups.h"
#include "backend/types/param_spec.h"

namespace qs {

// Parameters that KV methods declare alike, and how they are read from a complete, checked set.
ParamSpec compute_spec();  ///< compute = f32 | f16
ParamSpec store_spec();    ///< store = f16 | f32

int int_param(const ParamSet& params, const std::string& key);
const std::string& word_param(const ParamSet& params, const std::string& key);
GroupCompute compute_param(const ParamSet& params);
GroupStore store_param(const ParamSet& params);

/// @throws Error InvalidArgument unless `bits` is 2, 3, 4 or 8 (or 1 where `one_bit` says so)
void check_code_width(const std::string& method, const std::string& key, int bits, bool one_bit = false);

/// @throws Error InvalidArgument when a count is not positive or kv_heads does not divide heads
void check_head_counts(const CacheShape& shape);

/// @throws Error InvalidArgument when the packed layouts cannot hold a head: 8 must divide head_dim, at most
/// kMaxHeadDim
void check_packed_head_dim(const std::string& method, const CacheShape& shape);

}  // namespace qs
