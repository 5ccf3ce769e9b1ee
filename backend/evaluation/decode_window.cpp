#include "backend/evaluation/decode_window.h"

#include <ATen/ATen.h>

#include "backend/method.h"
#include "backend/model/cached_attention.h"
#include "backend/types/error.h"

namespace qs {

DecodedWindow decode_window(const Variant& variant, const std::vector<std::int64_t>& ids, const JobContext& job) {
  if (const std::string reason = variant.kv() ? variant.kv()->cannot_stream() : ""; !reason.empty())
    throw Error(ErrorCode::InvalidArgument,
                "This KV setup cannot be evaluated token by token: " + reason + " Use the KV mode prefill_quantized.");
  const DecoderWeights& weights = variant.weights();
  CachedAttention attention(variant.model().spec(), variant.kv(), weights.attention, weights.compute_type, 1);
  const auto tokens = static_cast<std::int64_t>(ids.size());
  std::vector<at::Tensor> rows;
  for (std::int64_t token = 0; token < tokens; ++token) {
    job.checkpoint(token, tokens, "Decoding token by token");
    rows.push_back(forward(variant.model().spec(), weights,
                           RaggedBatch::single({ids[static_cast<std::size_t>(token)]}, token), attention,
                           LogitRows::All, nullptr, job.quiet()));
  }
  return {at::cat(rows, 0), attention.stats(0)};
}

}  // namespace qs
