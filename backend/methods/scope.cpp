#include "backend/methods/scope.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "backend/methods/full_precision_kv.h"
#include "backend/methods/kivi.h"
#include "backend/methods/kv_params.h"
#include "backend/methods/scope_cache.h"
#include "backend/types/error.h"

namespace qs {
namespace {

PromptSelector selector_of(const std::string& word) {
  if (word == "allkv") return PromptSelector::All;
  if (word == "h2o") return PromptSelector::H2o;
  if (word == "pyramidkv") return PromptSelector::PyramidKv;
  return word == "streaming" ? PromptSelector::Streaming : PromptSelector::SnapKv;
}

DecodeStrategy strategy_of(const std::string& word) {
  if (word == "none") return DecodeStrategy::None;
  if (word == "adaptive") return DecodeStrategy::Adaptive;
  if (word == "discontinuous") return DecodeStrategy::Discontinuous;
  if (word == "h2o") return DecodeStrategy::H2o;
  return word == "streaming" ? DecodeStrategy::Streaming : DecodeStrategy::Slide;
}

[[noreturn]] void refuse(const std::string& why) { throw Error(ErrorCode::InvalidArgument, "scope: " + why); }

SelectionOptions options_of(const ParamSet& params) {
  SelectionOptions options;
  options.prefill = selector_of(word_param(params, "prefill"));
  options.strategy = strategy_of(word_param(params, "strategy"));
  options.prompt = int_param(params, "prompt");
  options.observation = int_param(params, "observation");
  if (options.observation == 0)
    options.observation = options.prefill == PromptSelector::Streaming ? options.prompt / 2 : 8;
  options.max_pooling = word_param(params, "pooling") == "max";
  options.kernel = int_param(params, "kernel");
  options.recent = int_param(params, "recent");
  options.heavy = int_param(params, "window") - options.recent;
  const std::string& reduction = word_param(params, "gqa");
  options.reduction = reduction == "max"   ? HeadReduction::Max
                      : reduction == "sum" ? HeadReduction::Sum
                                           : HeadReduction::Mean;
  options.tail_block_mask = word_param(params, "h2o_mask") == "tail_block";
  options.prefix_is_prompt = std::get<bool>(params.at("p_eff"));
  options.pyramid_ratio = int_param(params, "pyramid_ratio");
  if (options.prefill != PromptSelector::All && options.prompt <= options.observation)
    refuse("'prompt' must be more than the observation window of " + std::to_string(options.observation) +
           " tokens, found " + std::to_string(options.prompt) + "; the nearest is " +
           std::to_string(options.observation + 1) + ".");
  if (options.kernel % 2 == 0)
    refuse("'kernel' must be odd, found " + std::to_string(options.kernel) + "; the nearest is " +
           std::to_string(options.kernel + 1) + ".");
  if (options.heavy < 1)
    refuse("'window' (heavy hitters and recent tokens together) must be more than recent = " +
           std::to_string(options.recent) + ", found " + std::to_string(int_param(params, "window")) +
           "; the nearest is " + std::to_string(options.recent + 1) + ".");
  options.interval = std::max<std::int64_t>(1, (int_param(params, "max_out") - options.recent) / options.heavy);
  return options;
}

std::unique_ptr<KvMethod> make_scope_behind(std::shared_ptr<const KvMethod> before, const Setup& before_setup,
                                            const ParamSet& params) {
  const auto* const kivi = dynamic_cast<const Kivi*>(before.get());
  if (kivi == nullptr)
    refuse("cannot follow '" + before_setup.method +
           "': each KV head evicts tokens of its own and the newest must be in full precision, which only the packed "
           "cache of kivi offers. Use kivi, or scope alone.");
  const std::int64_t recent = int_param(params, "recent"), group = kivi->group_size();
  if (kivi->residual_length() < recent)
    refuse("the residual_length of kivi must be at least recent = " + std::to_string(recent) +
           ", so that recent tokens are in full precision; found " + std::to_string(kivi->residual_length()) +
           ", the nearest is " + std::to_string((recent + group - 1) / group * group) + ".");
  return std::make_unique<Scope>(params, std::move(before));
}

}  // namespace

Scope::Scope(const ParamSet& params, std::shared_ptr<const KvMethod> base)
    : options_(options_of(params)), compact_(word_param(params, "reclaim") == "compact"), base_(std::move(base)) {
  if (!base_) base_ = std::make_shared<FullPrecisionKv>(store_param(params));
}

QuantizedTensor Scope::quantize(const at::Tensor& x, KvRole role, const JobContext& job) const {
  return base_->quantize(x, role, job);
}

QuantizedTensor Scope::quantize_prompt(const KvPrompt& prompt, KvRole role, const JobContext& job) const {
  const at::Tensor& x = role == KvRole::Key ? prompt.key : prompt.value;
  check_finite(x, role);
  const at::Tensor kept = kept_after_prompt(prompt);
  QuantizedTensor result;
  result.values = held_in_full_precision(x).clone();
  result.codes = at::full(x.sizes(), 255, at::kByte);
  result.full_precision = at::ones(x.sizes(), at::kBool);
  for (std::int64_t head = 0; head < x.size(0); ++head) {
    const at::Tensor slots = kept.defined() ? at::nonzero(kept[head]).squeeze(1) : at::arange(x.size(1), at::kLong);
    const QuantizedTensor part = base_->quantize(x.narrow(0, head, 1).index_select(1, slots), role, job);
    const TokenRange range = base_->after_prefill(role, slots.numel());
    result.levels = part.levels;
    if (range.size() == 0) continue;
    const at::Tensor coded = slots.narrow(0, range.begin, range.size());
    result.values[head].index_copy_(0, coded, part.values[0].narrow(0, range.begin, range.size()));
    result.codes[head].index_copy_(0, coded, part.codes[0].narrow(0, range.begin, range.size()));
    const at::Tensor exempt = part.full_precision.defined()
                                  ? part.full_precision[0].narrow(0, range.begin, range.size())
                                  : at::zeros({range.size(), x.size(2)}, at::kBool);
    result.full_precision[head].index_copy_(0, coded, exempt);
  }
  return result;
}

at::Tensor Scope::kept_after_prompt(const KvPrompt& prompt) const {
  const std::int64_t tokens = prompt.key.size(1), rows = scoring_queries(options_, tokens, prompt.shape);
  if (rows > 0 && !prompt.query.defined())
    throw Error(ErrorCode::InvalidArgument,
                "scope: selecting from a prompt needs its queries, which are not known here.");
  const at::Tensor query = rows > 0 ? prompt.query.narrow(1, tokens - rows, rows) : at::Tensor();
  const at::Tensor selected = select_prompt(options_, query, prompt.key, prompt.shape);
  if (!selected.defined()) return {};
  return at::zeros({prompt.key.size(0), tokens}, at::kBool).scatter_(1, selected, true);
}

bool Scope::depends_on_attention() const {
  return options_.strategy != DecodeStrategy::None || options_.prefill != PromptSelector::All ||
         base_->depends_on_attention();
}

TokenRange Scope::seen_by_query(KvRole role, std::int64_t position) const {
  return base_->seen_by_query(role, position);
}

TokenRange Scope::after_prefill(KvRole role, std::int64_t tokens) const { return base_->after_prefill(role, tokens); }

std::unique_ptr<KvCache> Scope::make_cache(const CacheShape& shape) const { return make_scope_cache(shape); }

std::unique_ptr<ScopeCache> Scope::make_scope_cache(const CacheShape& shape) const {
  check_fits(shape);
  return std::make_unique<ScopeCache>(*base_, options_, compact_, shape);
}

double Scope::effective_bits(const CacheShape& shape, std::int64_t tokens) const {
  if (tokens <= 0) return 0.0;
  const double position_bits = 32.0 / (2.0 * static_cast<double>(shape.head_dim));
  return base_->effective_bits(shape, kept_prompt_tokens(options_, tokens, shape)) + position_bits;
}

void Scope::check_fits(const CacheShape& shape) const {
  check_head_counts(shape);
  base_->check_fits(shape);
}

KvMethodEntry scope_method() {
  return {
      {.id = "scope",
       .title = "SCOPE",
       .family = MethodFamily::Kv,
       .paper = "arXiv:2412.13649",
       .citation = "Wu et al., SCOPE: Optimizing Key-Value Cache Compression in Long-context Generation, 2024",
       .summary = "Keeps a selected prompt and, of the decoded tokens, heavy hitters and the newest; selection costs "
                  "time each step (published: half the tokens per second of the full cache).",
       .params = {{.key = "strategy",
                   .label = "Decode strategy",
                   .help = "When decoded tokens are evicted; h2o and streaming are the unified baselines that also "
                           "evict the prompt.",
                   .fallback = std::string("slide"),
                   .domain = Choices{{"none", "slide", "adaptive", "discontinuous", "h2o", "streaming"}}},
                  {.key = "prefill",
                   .label = "Prompt selector",
                   .help = "Which prompt tokens stay; allkv keeps them all.",
                   .fallback = std::string("snapkv"),
                   .domain = Choices{{"allkv", "h2o", "snapkv", "pyramidkv", "streaming"}}},
                  {.key = "prompt",
                   .label = "Prompt budget",
                   .help = "Slots of the protected prefix; more is better and larger in memory.",
                   .fallback = 2048,
                   .domain = IntRange{1, 1 << 20},
                   .unit = "tokens",
                   .aliases = {"p"}},
                  {.key = "window",
                   .label = "Decode window",
                   .help = "Decoded tokens that stay, heavy hitters and recent ones together; more is better and "
                           "larger in memory.",
                   .fallback = 512,
                   .domain = IntRange{2, 1 << 20},
                   .unit = "tokens"},
                  {.key = "recent",
                   .label = "Recent tokens",
                   .help = "Newest tokens that always stay; the rest of the window is for heavy hitters.",
                   .fallback = 256,
                   .domain = IntRange{1, 1 << 20},
                   .unit = "tokens"},
                  {.key = "max_out",
                   .label = "Longest output",
                   .help = "Paces adaptive and discontinuous: a longer output lets the pool grow more slowly.",
                   .fallback = 4096,
                   .domain = IntRange{1, 1 << 20},
                   .unit = "tokens"},
                  {.key = "observation",
                   .label = "Observation window",
                   .help = "Newest prompt tokens that always stay and whose queries score the others; 0: 8, or half "
                           "of the prompt budget for streaming.",
                   .fallback = 0,
                   .domain = IntRange{0, 1 << 20},
                   .unit = "tokens",
                   .aliases = {"w"}},
                  {.key = "pooling",
                   .label = "Score pooling",
                   .help = "Of snapkv and pyramidkv, over neighbouring tokens.",
                   .fallback = std::string("max"),
                   .domain = Choices{{"max", "avg"}}},
                  {.key = "kernel",
                   .label = "Pooling width",
                   .help = "Odd; wider keeps longer runs of tokens, 1 pools nothing.",
                   .fallback = 7,
                   .domain = IntRange{1, 255},
                   .unit = "tokens"},
                  {.key = "gqa",
                   .label = "Scores over query heads",
                   .help = "How the query heads that share a KV head agree on its tokens.",
                   .fallback = std::string("mean"),
                   .domain = Choices{{"mean", "max", "sum"}}},
                  {.key = "h2o_mask",
                   .label = "h2o prompt mask",
                   .help = "tail_block reproduces the published code, where early queries also see later tokens.",
                   .fallback = std::string("causal"),
                   .domain = Choices{{"causal", "tail_block"}},
                   .advanced = true},
                  {.key = "p_eff",
                   .label = "Protect the prompt only",
                   .help = "The protected prefix is what the prompt left; off: always as many slots as the prompt "
                           "budget, which decoded tokens fill after a short prompt.",
                   .fallback = false,
                   .advanced = true},
                  {.key = "pyramid_ratio",
                   .label = "Pyramid ratio",
                   .help = "Of pyramidkv: prompt budget to the smallest layer's; larger makes layers differ more.",
                   .fallback = 20,
                   .domain = IntRange{1, 1000},
                   .advanced = true},
                  {.key = "reclaim",
                   .label = "Room of evicted tokens",
                   .help = "Behind kivi: compact also quantizes keys anew where half of two blocks is dead; blocks "
                           "waits until a whole block is. Alone, tokens leave at once.",
                   .fallback = std::string("compact"),
                   .domain = Choices{{"compact", "blocks"}},
                   .advanced = true},
                  {.key = "store",
                   .label = "Stored type",
                   .help = "Of tokens when scope stands alone; f32 is for verification and doubles their memory.",
                   .fallback = std::string("f16"),
                   .domain = Choices{{"f16", "f32"}},
                   .advanced = true}},
       .presets = {{.label = "SCOPE slide, 4K output, paper setting",
                    .params = {{"prompt", 2048}, {"window", 512}, {"recent", 256}, {"max_out", 4096}},
                    .source = "arXiv:2412.13649, Linking-ai/SCOPE"},
                   {.label = "SCOPE slide, 8K output, paper setting",
                    .params = {{"prompt", 4096}, {"window", 512}, {"recent", 256}, {"max_out", 8192}},
                    .source = "arXiv:2412.13649, Linking-ai/SCOPE"},
                   {.label = "SCOPE adaptive, 4K output",
                    .params = {{"strategy", std::string("adaptive")}},
                    .source = "arXiv:2412.13649, Linking-ai/SCOPE"},
                   {.label = "SCOPE discontinuous, 4K output",
                    .params = {{"strategy", std::string("discontinuous")}},
                    .source = "arXiv:2412.13649, Linking-ai/SCOPE"},
                   {.label = "H2O unified baseline, 4K output",
                    .params = {{"strategy", std::string("h2o")}, {"prefill", std::string("h2o")}},
                    .source = "arXiv:2412.13649, Linking-ai/SCOPE"},
                   {.label = "StreamingLLM baseline, 4K output",
                    .params = {{"strategy", std::string("streaming")}, {"prefill", std::string("streaming")}},
                    .source = "arXiv:2412.13649, Linking-ai/SCOPE"}},
       .may_follow = {"*"},
       .effective_bits_formula = "token that is held: 16, or behind kivi what kivi costs, + 16 / head_dim for its "
                                 "position; evicted tokens cost nothing"},
      [](const ParamSet& params, const KvLayerArtifact*) -> std::unique_ptr<KvMethod> {
        return std::make_unique<Scope>(params);
      },
      nullptr,
      nullptr,
      nullptr,
      nullptr,
      make_scope_behind};
}

}  // namespace qs
