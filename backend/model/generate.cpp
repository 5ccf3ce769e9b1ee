#include "backend/model/generate.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "backend/model/cached_attention.h"
#include "backend/model/sampler.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Ids = std::vector<std::int64_t>;
using Clock = std::chrono::steady_clock;
constexpr std::size_t kTopCandidates = 5;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::span<const float> row_of(const at::Tensor& logits, std::int64_t row) {
  return {logits.data_ptr<float>() + row * logits.size(1), static_cast<std::size_t>(logits.size(1))};
}

std::string shown_text(const Model& model, std::int64_t id) {
  return model.has_tokenizer() ? model.tokenizer().token_text(id) : std::to_string(id);
}

std::vector<TokenCandidate> top_candidates(const Model& model, std::span<const float> logits) {
  std::vector<TokenCandidate> top;
  for (const SamplingChoice& choice : likeliest(logits, kTopCandidates))
    top.push_back({choice.id, shown_text(model, choice.id), static_cast<float>(choice.probability)});
  return top;
}

void check_prompt(const Model& model, const Ids& prompt) {
  if (prompt.empty())
    throw Error(ErrorCode::InvalidArgument,
                "The prompt is empty. A prompt needs at least one token, such as the beginning-of-text token.");
  if (static_cast<std::int64_t>(prompt.size()) >= model.spec().max_context)
    throw Error(ErrorCode::InvalidArgument, "The prompt has " + std::to_string(prompt.size()) +
                                                " tokens, the model's context " +
                                                std::to_string(model.spec().max_context) +
                                                "; at least one must be left to generate. Shorten the prompt.");
}

/// Compares the full-precision cache at its longest with what can still be allocated; a quantized one is smaller.
void check_cache_memory(const Variant& variant, const std::vector<Ids>& prompts, const SamplingOptions& options) {
  const Model& model = variant.model();
  std::int64_t need = 0, tokens = 0;
  for (const Ids& prompt : prompts) {
    const std::int64_t length =
        std::min(model.spec().max_context, static_cast<std::int64_t>(prompt.size()) + options.max_tokens);
    need += estimate_memory(model.info(), model.options(), length).kv;
    tokens += length;
  }
  const std::int64_t available = available_memory();
  if (need <= available) return;
  throw Error(ErrorCode::OutOfMemory, "A cache of " + std::to_string(tokens) + " tokens needs up to " +
                                          std::to_string(need >> 20) + " MiB, but only " +
                                          std::to_string(available >> 20) +
                                          " MiB are available. Shorten the prompt or generate fewer tokens.");
}

CachedAttention make_attention(const Variant& variant, std::int64_t sequences) {
  return CachedAttention(variant.model().spec(), variant.kv(), variant.weights().attention,
                         variant.weights().compute_type, sequences);
}

/// One text being generated.
class Writer {
 public:
  Writer(const Model& model, const Ids& prompt, const SamplingOptions& options)
      : model_(model), options_(options), sampler_(options), history_(prompt) {
    result_.prompt_ids = prompt;
    result_.seed = options.seed;
    result_.greedy = options.temperature == 0.0;
    if (!model.has_tokenizer()) return;
    decoder_.emplace(model.tokenizer());
    for (const std::int64_t id : prompt) decoder_->push(id);
  }

  /// Draws a token from `logits`.
  TokenStep write(std::span<const float> logits) {
    TokenStep step;
    step.id = sampler_.next(logits, history_);
    step.index = static_cast<std::int64_t>(result_.ids.size());
    step.logprob = static_cast<float>(log_probability(logits, step.id));
    step.top = top_candidates(model_, logits);
    history_.push_back(step.id);
    result_.ids.push_back(step.id);
    const auto& ends = model_.info().eos_ids;
    const bool at_end = std::find(ends.begin(), ends.end(), step.id) != ends.end();
    result_.stopped_at_eos = at_end && options_.stop_at_eos;
    done_ = result_.stopped_at_eos || step.index + 1 >= options_.max_tokens ||
            static_cast<std::int64_t>(history_.size()) >= model_.spec().max_context;
    if (decoder_) {
      step.text = decoder_->push(step.id);
      if (done_) step.text += decoder_->finish();
      result_.text += step.text;
    }
    return step;
  }

  bool done() const { return done_; }
  std::int64_t last_id() const { return history_.back(); }
  std::int64_t last_position() const { return static_cast<std::int64_t>(history_.size()) - 1; }
  GenerationResult& result() { return result_; }

 private:
  const Model& model_;
  SamplingOptions options_;
  Sampler sampler_;
  std::optional<StreamingDecoder> decoder_;
  Ids history_;
  GenerationResult result_;
  bool done_ = false;
};

RaggedBatch prompt_batch(const std::vector<Ids>& prompts) {
  Ids all;
  RaggedBatch batch;
  for (const Ids& prompt : prompts) {
    batch.sequences.push_back({static_cast<std::int64_t>(all.size()), static_cast<std::int64_t>(prompt.size()), 0});
    all.insert(all.end(), prompt.begin(), prompt.end());
  }
  batch.ids = at::tensor(all, at::kLong);
  return batch;
}

/// The newest token of each unfinished text.
RaggedBatch step_batch(const std::vector<Writer>& writers, const Ids& active) {
  Ids ids;
  RaggedBatch batch;
  for (const std::int64_t index : active) {
    const Writer& writer = writers[static_cast<std::size_t>(index)];
    batch.sequences.push_back({static_cast<std::int64_t>(ids.size()), 1, writer.last_position()});
    ids.push_back(writer.last_id());
  }
  batch.ids = at::tensor(ids, at::kLong);
  return batch;
}

std::vector<GenerationResult> run(const Variant& variant, const std::vector<Ids>& prompts,
                                  const SamplingOptions& options, const std::function<void(const TokenStep&)>& on_token,
                                  const JobContext& job) {
  const Model& model = variant.model();
  check_sampling(options);
  for (const Ids& prompt : prompts) check_prompt(model, prompt);
  check_cache_memory(variant, prompts, options);
  const auto count = static_cast<std::int64_t>(prompts.size());
  CachedAttention attention = make_attention(variant, count);
  std::vector<Writer> writers;
  for (const Ids& prompt : prompts) writers.emplace_back(model, prompt, options);

  const JobContext prefill_job = job.part(0.0, 0.1);
  const Clock::time_point prefill_start = Clock::now();
  at::Tensor logits = forward(model.spec(), variant.weights(), prompt_batch(prompts), attention,
                              LogitRows::LastOfSequence, nullptr, prefill_job)
                          .contiguous();
  const double seconds_prefill = seconds_since(prefill_start);

  Ids active(prompts.size());
  for (std::int64_t i = 0; i < count; ++i) active[static_cast<std::size_t>(i)] = i;
  const JobContext decode_job = job.part(0.1, 1.0);
  const Clock::time_point decode_start = Clock::now();
  for (std::int64_t token = 0;; ++token) {
    decode_job.checkpoint(token, options.max_tokens, "Generating");
    Ids still;
    for (std::size_t row = 0; row < active.size(); ++row) {
      Writer& writer = writers[static_cast<std::size_t>(active[row])];
      TokenStep step = writer.write(row_of(logits, static_cast<std::int64_t>(row)));
      const CacheStats cache = attention.stats(active[row]);
      step.kv_bytes = cache.bytes();
      step.kv_bytes_if_f16 = cache.bytes_if_f16;
      writer.result().seconds_decode = seconds_since(decode_start);
      if (on_token) on_token(step);
      if (!writer.done()) still.push_back(active[row]);
    }
    if (still.empty()) break;
    active = still;
    attention.set_active(active);
    logits = forward(model.spec(), variant.weights(), step_batch(writers, active), attention, LogitRows::LastOfSequence,
                     nullptr, decode_job.quiet())
                 .contiguous();
  }
  std::vector<GenerationResult> results;
  for (std::int64_t i = 0; i < count; ++i) {
    GenerationResult& result = writers[static_cast<std::size_t>(i)].result();
    result.seconds_prefill = seconds_prefill;
    result.cache = attention.stats(i);
    results.push_back(std::move(result));
  }
  return results;
}

}  // namespace

GenerationResult generate(const Variant& variant, const Ids& prompt_ids, const SamplingOptions& options,
                          const std::function<void(const TokenStep&)>& on_token, const JobContext& job) {
  return translate_torch_errors("Generating", [&] {
    const c10::NoGradGuard no_gradients;
    return std::move(run(variant, {prompt_ids}, options, on_token, job).front());
  });
}

std::vector<GenerationResult> generate_batch(const Variant& variant, const std::vector<Ids>& padded_ids,
                                             const std::vector<std::vector<bool>>& mask, const SamplingOptions& options,
                                             const JobContext& job) {
  if (padded_ids.empty() || mask.size() != padded_ids.size())
    throw Error(ErrorCode::InvalidArgument, "A batch needs at least one prompt and one mask a prompt; there are " +
                                                std::to_string(padded_ids.size()) + " prompts and " +
                                                std::to_string(mask.size()) + " masks.");
  std::vector<Ids> prompts;
  for (std::size_t i = 0; i < padded_ids.size(); ++i) {
    if (mask[i].size() != padded_ids[i].size())
      throw Error(ErrorCode::InvalidArgument, "Prompt " + std::to_string(i) + " has " +
                                                  std::to_string(padded_ids[i].size()) + " ids, its mask " +
                                                  std::to_string(mask[i].size()) + ".");
    Ids prompt;
    for (std::size_t token = 0; token < padded_ids[i].size(); ++token)
      if (mask[i][token]) prompt.push_back(padded_ids[i][token]);
    prompts.push_back(std::move(prompt));
  }
  return translate_torch_errors("Generating", [&] {
    const c10::NoGradGuard no_gradients;
    return run(variant, prompts, options, {}, job);
  });
}

namespace {

ReplayStep compare(const Variant& reference, const Variant& variant, const at::Tensor& reference_logits,
                   const at::Tensor& variant_logits, std::int64_t index, std::int64_t id) {
  ReplayStep step;
  step.index = index;
  step.id = id;
  const at::Tensor p = at::log_softmax(reference_logits.select(0, 0).to(at::kDouble), -1);
  const at::Tensor q = at::log_softmax(variant_logits.select(0, 0).to(at::kDouble), -1);
  step.kl_nats = (p.exp() * (p - q)).sum().item<double>();
  step.probability_change = q.select(0, id).exp().item<double>() - p.select(0, id).exp().item<double>();
  step.reference_top = top_candidates(reference.model(), row_of(reference_logits, 0));
  step.variant_top = top_candidates(variant.model(), row_of(variant_logits, 0));
  step.same_top1 = step.reference_top.front().id == step.variant_top.front().id;
  const float second = step.reference_top.size() > 1 ? step.reference_top[1].probability : 0.0f;
  step.reference_margin = static_cast<double>(step.reference_top.front().probability) - second;
  return step;
}

}  // namespace

std::vector<ReplayStep> replay(const Variant& reference, const Variant& variant, const Ids& ids, std::int64_t first,
                               const std::function<void(const ReplayStep&)>& on_step, const JobContext& job) {
  const auto count = static_cast<std::int64_t>(ids.size());
  if (first < 1 || first >= count)
    throw Error(ErrorCode::InvalidArgument, "Replay compares from token " + std::to_string(first) + "; with " +
                                                std::to_string(count) + " tokens it must be 1 to " +
                                                std::to_string(count - 1) + ".");
  if (reference.model().spec().vocab_size != variant.model().spec().vocab_size)
    throw Error(ErrorCode::InvalidArgument, "Replay needs two variants of one vocabulary; they have " +
                                                std::to_string(reference.model().spec().vocab_size) + " and " +
                                                std::to_string(variant.model().spec().vocab_size) + " tokens.");
  return translate_torch_errors("Replaying", [&] {
    const c10::NoGradGuard no_gradients;
    CachedAttention reference_attention = make_attention(reference, 1);
    CachedAttention variant_attention = make_attention(variant, 1);
    const auto advance = [](const Variant& of, CachedAttention& attention, const RaggedBatch& batch,
                            const JobContext& part) {
      return forward(of.model().spec(), of.weights(), batch, attention, LogitRows::LastOfSequence, nullptr, part)
          .contiguous();
    };
    std::vector<ReplayStep> steps;
    RaggedBatch batch = RaggedBatch::single(Ids(ids.begin(), ids.begin() + first));
    for (std::int64_t index = first; index < count; ++index) {
      job.checkpoint(index - first, count - first, "Replaying");
      const at::Tensor reference_logits = advance(reference, reference_attention, batch, job.quiet());
      const at::Tensor variant_logits = advance(variant, variant_attention, batch, job.quiet());
      const std::int64_t id = ids[static_cast<std::size_t>(index)];
      steps.push_back(compare(reference, variant, reference_logits, variant_logits, index, id));
      if (on_step) on_step(steps.back());
      batch = RaggedBatch::single({id}, index);
    }
    job.checkpoint(1, 1, "Replaying");
    return steps;
  });
}

}  // namespace qs
