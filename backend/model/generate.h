#pragma once

#include <functional>
#include <vector>

#include "backend/model/variant.h"
#include "backend/types/generation.h"

namespace qs {

/// Generates with the variant's own cache: the prompt in one pass, then token by token. Prompt attention uses the
/// original keys and values, the stored cache is quantized (prefill_attention = full). Log-probabilities are always
/// computed, so asking for them cannot change the text; the same seed gives the same ids for equal logits.
/// @param on_token  called after every token on the calling thread; may be empty
/// @throws Error InvalidArgument when the prompt is empty or does not fit the context
GenerationResult generate(const Variant& variant, const std::vector<std::int64_t>& prompt_ids,
                          const SamplingOptions& options, const std::function<void(const TokenStep&)>& on_token,
                          const JobContext& job);

/// Several prompts of unequal length at once; equal to generating them one by one.
/// @param padded_ids  [prompts][length]; `mask` is false at padding (left or right), which is never computed
std::vector<GenerationResult> generate_batch(const Variant& variant,
                                             const std::vector<std::vector<std::int64_t>>& padded_ids,
                                             const std::vector<std::vector<bool>>& mask, const SamplingOptions& options,
                                             const JobContext& job);

/// Lock-step replay: feeds `ids` (prompt and the reference's tokens) to both through their caches, the first `first`
/// tokens in one pass as `generate` does and the rest token by token, and compares the distributions that predict each
/// token from `first` on.
/// @throws Error InvalidArgument when the two do not share a vocabulary, or `first` is not in 1 .. ids.size() - 1
/// @param on_step  called after every token; may be empty
std::vector<ReplayStep> replay(const Variant& reference, const Variant& variant, const std::vector<std::int64_t>& ids,
                               std::int64_t first, const std::function<void(const ReplayStep&)>& on_step,
                               const JobContext& job);

}  // namespace qs
