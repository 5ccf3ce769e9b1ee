#pragma once

#include <ATen/core/Tensor.h>

#include "backend/method.h"
#include "backend/model/decoder.h"
#include "backend/types/eval_result.h"

namespace qs {

/// Teacher-forced attention over one window through a KV method (KV specification sections 1.8 and 2).
///
/// The window's keys and values are reconstructed once a layer. Streaming: every query sees what token-by-token
/// decoding from the first token would show it, by choosing per query and token between reconstruction and full
/// precision. PrefillQuantized: every query sees the cache as it stands after the whole window was stored as a prompt,
/// up to its own position; of a method that selects tokens, those of its KV head that were kept, and its own token.
class WindowAttention final : public AttentionProvider {
 public:
  /// @param plan, spec  must outlive this
  /// @throws Error InvalidArgument when the method cannot stream and `mode` is Streaming
  WindowAttention(const KvPlan& plan, KvMode mode, const ArchitectureSpec& spec, JobContext job);
  at::Tensor attend(const AttentionCall& call) override;

 private:
  struct Seen {
    at::Tensor quantized, held;  ///< f32 [kv_heads, tokens, head_dim], keys rotated
  };
  Seen reconstruct(const KvPrompt& prompt, KvRole role) const;
  at::Tensor choice(KvRole role, std::int64_t begin, std::int64_t rows, std::int64_t tokens) const;

  const KvPlan* plan_;
  const KvMethod* method_ = nullptr;  ///< of the layer being attended
  KvMode mode_;
  const ArchitectureSpec* spec_;
  JobContext job_;
};

}  // namespace qs
