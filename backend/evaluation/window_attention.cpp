#include "backend/evaluation/window_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/model/cached_attention.h"
#include "backend/model/in_layer.h"
#include "backend/types/error.h"

namespace qs {
namespace {

/// Scores held at once, so that a long window needs no tokens x tokens matrix.
constexpr std::int64_t kMaxScores = std::int64_t{1} << 23;

at::Tensor range_ends(const std::vector<std::int64_t>& ends) {
  return at::from_blob(const_cast<std::int64_t*>(ends.data()), {static_cast<std::int64_t>(ends.size()), 1}, at::kLong)
      .clone();
}

}  // namespace

WindowAttention::WindowAttention(const KvPlan& plan, KvMode mode, const ArchitectureSpec& spec, JobContext job)
    : plan_(&plan), mode_(mode), spec_(&spec), job_(std::move(job)) {
  const std::string reason = plan.cannot_stream();
  if (mode == KvMode::Streaming && !reason.empty()) {
    throw Error(ErrorCode::InvalidArgument,
                "This KV setup cannot be evaluated token by token: " + reason + " Use the KV mode prefill_quantized.");
  }
}

WindowAttention::Seen WindowAttention::reconstruct(const KvPrompt& prompt, KvRole role) const {
  Seen seen;
  const at::Tensor& x = role == KvRole::Key ? prompt.key : prompt.value;
  seen.quantized = (mode_ == KvMode::Streaming ? method_->quantize_stream(prompt, role, job_)
                                               : method_->quantize_prompt(prompt, role, job_))
                       .values.to(at::kFloat);
  seen.held = method_->held_in_full_precision(x).to(at::kFloat);
  if (role == KvRole::Key && method_->key_domain() == KeyDomain::PreRope) {
    seen.quantized = apply_rope(seen.quantized, 0, prompt.shape.rope);
    seen.held = apply_rope(seen.held, 0, prompt.shape.rope);
  }
  return seen;
}

at::Tensor WindowAttention::choice(KvRole role, std::int64_t begin, std::int64_t rows, std::int64_t tokens) const {
  std::vector<std::int64_t> first, end;
  for (std::int64_t row = 0; row < rows; ++row) {
    const TokenRange range =
        mode_ == KvMode::Streaming ? method_->seen_by_query(role, begin + row) : method_->after_prefill(role, tokens);
    first.push_back(range.begin);
    end.push_back(range.end);
  }
  const at::Tensor position = at::arange(std::min(begin + rows, tokens), at::kLong).unsqueeze(0);
  return at::logical_and(position >= range_ends(first), position < range_ends(end));
}

at::Tensor WindowAttention::attend(const AttentionCall& call) {
  if (call.first_position != 0) {
    throw Error(ErrorCode::InvalidArgument,
                "A whole window begins at position 0, not at " + std::to_string(call.first_position) + ".");
  }
  method_ = &plan_->layer(call.layer);
  const bool pre_rope = method_->key_domain() == KeyDomain::PreRope;
  const KvPrompt prompt{call.query, pre_rope ? call.key_pre_rope : call.key, call.value,
                        cache_shape(*spec_, call.layer)};
  const auto [key, value] = in_layer(
      call.layer, [&] { return std::pair(reconstruct(prompt, KvRole::Key), reconstruct(prompt, KvRole::Value)); });
  const at::Tensor kept = mode_ == KvMode::PrefillQuantized ? method_->kept_after_prompt(prompt) : at::Tensor();
  const at::Tensor query = call.query.to(at::kFloat);
  const std::int64_t heads = query.size(0), tokens = query.size(1), head_dim = query.size(2);
  const std::int64_t kv_heads = key.held.size(0), group = heads / kv_heads;
  const AttentionRules& rules = call.rules;
  const double scale = rules.score_scale > 0.0 ? rules.score_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  const std::int64_t step = std::clamp(kMaxScores / std::max<std::int64_t>(1, heads * tokens), std::int64_t{1}, tokens);
  std::vector<at::Tensor> parts;
  for (std::int64_t begin = 0; begin < tokens; begin += step) {
    job_.checkpoint(0, 1, "Attention");
    const std::int64_t rows = std::min(step, tokens - begin), seen = begin + rows;
    const at::Tensor part = query.narrow(1, begin, rows).reshape({kv_heads, group * rows, head_dim});
    const auto scores_of = [&](const at::Tensor& keys) {
      at::Tensor scores = at::bmm(part, keys.narrow(1, 0, seen).transpose(1, 2)).mul_(scale);
      if (rules.score_softcap > 0.0) scores.div_(rules.score_softcap).tanh_().mul_(rules.score_softcap);
      return scores.view({heads, rows, seen});
    };
    const auto choice_of = [&](KvRole role) {
      return kept.defined() ? at::ones({rows, seen}, at::kBool) : choice(role, begin, rows, tokens);
    };
    const at::Tensor key_choice = choice_of(KvRole::Key), value_choice = choice_of(KvRole::Value);
    at::Tensor scores = at::where(key_choice.unsqueeze(0), scores_of(key.quantized), scores_of(key.held));
    scores.masked_fill_(hidden_keys(rows, seen, begin, rules.sliding_window), -std::numeric_limits<double>::infinity());
    if (kept.defined()) {
      const at::Tensor others = at::arange(seen, at::kLong) != at::arange(begin, seen, at::kLong).unsqueeze(1);
      const at::Tensor gone = kept.narrow(1, 0, seen).logical_not().unsqueeze(1);
      scores.masked_fill_(at::logical_and(gone, others).repeat_interleave(group, 0),
                          -std::numeric_limits<double>::infinity());
    }
    const at::Tensor weights = at::softmax(scores, -1);
    const auto sum_of = [&](const at::Tensor& mask, const at::Tensor& values) {
      return at::bmm((weights * mask.unsqueeze(0)).view({kv_heads, group * rows, seen}), values.narrow(1, 0, seen));
    };
    const at::Tensor output = sum_of(value_choice, value.quantized) + sum_of(value_choice.logical_not(), value.held);
    parts.push_back(output.view({heads, rows, head_dim}));
  }
  return (parts.size() == 1 ? parts.front() : at::cat(parts, 1)).to(call.query.scalar_type());
}

}  // namespace qs
