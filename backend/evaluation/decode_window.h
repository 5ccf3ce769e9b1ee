#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "backend/model/variant.h"
#include "backend/types/generation.h"
#include "backend/types/job.h"

namespace qs {

struct DecodedWindow {
  at::Tensor logits;  ///< f32 [tokens, vocab_size]
  CacheStats cache;   ///< after the last token, summed over layers
};

/// One window decoded token by token through live caches: the first token is the prompt, all others are decode steps.
/// The only exact way where what a query sees depends on attention of earlier steps (KvPlan::depends_on_attention).
/// @throws Error InvalidArgument when the setup cannot stream
DecodedWindow decode_window(const Variant& variant, const std::vector<std::int64_t>& ids, const JobContext& job);

}  // namespace qs
