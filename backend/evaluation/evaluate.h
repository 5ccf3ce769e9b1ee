#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "backend/model/variant.h"
#include "backend/types/eval_result.h"
#include "backend/types/job.h"

namespace at {
class Tensor;
}

namespace qs {

struct EvalText {
  std::string name;    ///< file name
  std::string sha256;  ///< of the bytes
  std::string text;
};
/// @throws Error NotFound, Io, InvalidArgument (not UTF-8, empty)
EvalText read_text(const std::filesystem::path& path);

struct EvalRequest {
  EvalText text;
  std::vector<std::string> tasks = {"ppl", "kl", "top1"};
  std::int64_t window = 0;       ///< 0: the smaller of 2048 and the model's context
  std::int64_t windows = 0;      ///< 0: all
  bool bos_each_window = false;  ///< true: each window starts with BOS (then window - 1 text tokens follow)
  KvMode kv_mode = KvMode::Streaming;
  std::uint64_t seed = 0;
};

/// Perplexity, KL divergence to full precision and top-1 agreement over teacher-forced windows (weights
/// specification 12.1, KV specification 2). The reference logits come from the same model in full precision, window by
/// window, so nothing larger than one window is kept.
/// @param reference  the full-precision variant of the same model; used when a task compares with it
/// @throws Error InvalidArgument when the text is shorter than one window (tokens there, tokens needed), unknown task
/// (with
///         the list), NaN in logits (with window and position)
EvalReport evaluate(const Variant& variant, const Variant& reference, const EvalRequest& request,
                    const JobContext& job);

/// Per-window differences b - a of one task. @throws Error InvalidArgument when the fingerprints or lengths differ
PairedDifference paired_difference(const EvalReport& a, const EvalReport& b, const std::string& task);

/// Logits of one window under the variant's KV method, as token-by-token decoding (streaming) or one-pass quantized
/// prefill would give them. Where attention decides what is quantized or kept, streaming decodes the window through
/// live caches. @return f32 [tokens, vocab_size]
at::Tensor window_logits(const Variant& variant, const std::vector<std::int64_t>& ids, KvMode mode,
                         const JobContext& job);

}  // namespace qs
