#include "app/cli/cli.h"
#include "app/cli/variant_options.h"
#include "backend/evaluation/cache_memory.h"
#include "backend/model/generate.h"
#include "backend/tokenizer/chat_template.h"

namespace qs::cli {
namespace {

std::string ids_text(const std::vector<std::int64_t>& ids) {
  std::string text;
  for (const std::int64_t id : ids) text += (text.empty() ? "" : ",") + std::to_string(id);
  return text;
}

std::string kinds_text() {
  std::string text;
  for (const ChatKind kind : all_chat_kinds()) {
    if (kind == ChatKind::Custom) continue;
    text += (text.empty() ? "" : ", ") + std::string(chat_kind_id(kind));
  }
  return text;
}

ChatTemplateChoice choice_of(const std::string& name) {
  ChatTemplateChoice choice;
  if (name == "auto") return choice;
  choice.automatic = false;
  if (!chat_kind_from_id(name, choice.kind) || choice.kind == ChatKind::Custom)
    throw UsageError{"--template: '" + name + "' is not a chat template; known are auto, " + kinds_text() + "."};
  return choice;
}

ChatFormat format_of(const Tokenizer& tokenizer, const std::string& name) {
  const ChatFormat format = choose_chat_format(tokenizer.chat_template(), choice_of(name));
  if (name == "auto" && format.kind == ChatKind::Raw) {
    throw Error(ErrorCode::InvalidArgument,
                std::string(tokenizer.chat_template().empty() ? "The model brings no chat template"
                                                              : "The model's chat template is not one that is known") +
                    ". Name one with --template (" + kinds_text() + "), or give the text with --prompt.");
  }
  return format;
}

/// What token selection did; empty where nothing was evicted.
std::string selection_text(const CacheStats& cache) {
  if (cache.tokens_evicted == 0) return {};
  return ", " + std::to_string(cache.tokens_evicted) + " of " + std::to_string(cache.tokens + cache.tokens_evicted) +
         " tokens evicted, live " + bytes_text(cache.bytes_live()) + ", dead " + bytes_text(cache.bytes_dead);
}

}  // namespace

void add_generate(CLI::App& app, Cli& cli) {
  struct Options {
    VariantOptions variant;
    std::string prompt, chat, system, chat_template = "auto";
    std::vector<std::int64_t> prompt_ids;
    SamplingOptions sampling;
    bool ignore_eos = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("generate", "continue a text");
  add_variant_options(*verb, options->variant);
  CLI::Option* prompt = verb->add_option("--prompt", options->prompt, "text to continue");
  verb->add_option("--prompt-ids", options->prompt_ids, "token ids to continue, as 1,2,3; needs no tokenizer")
      ->delimiter(',')
      ->excludes(prompt);
  CLI::Option* chat =
      verb->add_option("--chat", options->chat, "message to answer, written in the model's chat template");
  prompt->excludes(chat);
  verb->add_option("--system", options->system, "system message of --chat")->needs(chat);
  verb->add_option("--template", options->chat_template, "of --chat: auto, " + kinds_text())->needs(chat);
  verb->add_option("--max-tokens", options->sampling.max_tokens, "tokens to make")->check(CLI::Range(1, 1 << 20));
  verb->add_option("--seed", options->sampling.seed, "of the sampler");
  verb->add_option("--temperature", options->sampling.temperature, "0 is greedy")->check(CLI::Range(0.0, 100.0));
  verb->add_option("--top-k", options->sampling.top_k, "0 is off")->check(CLI::Range(0, 1 << 24));
  verb->add_option("--top-p", options->sampling.top_p)->check(CLI::Range(0.0, 1.0));
  verb->add_option("--min-p", options->sampling.min_p)->check(CLI::Range(0.0, 1.0));
  verb->add_option("--repetition-penalty", options->sampling.repetition_penalty)->check(CLI::Range(0.01, 100.0));
  verb->add_flag("--ignore-eos", options->ignore_eos, "go on after the end-of-text token");
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      if (!options->chat.empty()) choice_of(options->chat_template);
      const std::optional<Setup> kv = kv_setup(options->variant.kv), weights = weight_setup(options->variant.weights);
      const auto variant = build(options->variant, weights, kv, job.part(0.0, 0.5));
      SamplingOptions sampling = options->sampling;
      sampling.stop_at_eos = !options->ignore_eos;
      ChatFormat format;
      RenderedPrompt prompt{{}, options->prompt_ids};
      if (prompt.ids.empty()) {
        const Tokenizer& tokenizer = variant->model().tokenizer();
        if (!options->chat.empty()) format = format_of(tokenizer, options->chat_template);
        prompt =
            render_prompt(tokenizer, format, options->system, options->chat.empty() ? options->prompt : options->chat);
      }
      const GenerationResult result = generate(*variant, prompt.ids, sampling, {}, job.part(0.5, 1.0));
      Output output;
      output.json = {{"prompt_ids", result.prompt_ids},
                     {"ids", result.ids},
                     {"text", result.text},
                     {"seed", result.seed},
                     {"greedy", result.greedy},
                     {"stopped_at_eos", result.stopped_at_eos},
                     {"variant", variant->label().text()},
                     {"seconds_prefill", result.seconds_prefill},
                     {"seconds_decode", result.seconds_decode},
                     {"tokens_per_second", result.tokens_per_second()},
                     {"memory", {{"weights_bytes", variant->weight_bytes()}, {"peak_rss", peak_resident_bytes()}}},
                     {"kv_bytes", result.cache.bytes()},
                     {"kv_bytes_dead", result.cache.bytes_dead},
                     {"kv_tokens", result.cache.tokens},
                     {"kv_tokens_evicted", result.cache.tokens_evicted},
                     {"kv_requantized_tokens", result.cache.requantized_tokens},
                     {"kv_bytes_full_precision", result.cache.bytes_if_f16}};
      const std::string text = variant->model().has_tokenizer() ? prompt.text + result.text : ids_text(result.ids);
      if (!options->chat.empty())
        output.json["chat"] = {{"template", chat_kind_id(format.kind)}, {"text", prompt.text}};
      output.text = text + "\n\n" + variant->label().text() + ": " + std::to_string(result.ids.size()) + " tokens, " +
                    fixed(result.tokens_per_second(), 1) + " tokens/s after a prompt of " +
                    std::to_string(result.prompt_ids.size()) + " tokens in " + fixed(result.seconds_prefill * 1e3, 1) +
                    " ms; KV cache " + bytes_text(result.cache.bytes()) +
                    " (f16: " + bytes_text(result.cache.bytes_if_f16) + ")" + selection_text(result.cache) + "; seed " +
                    std::to_string(result.seed) + "\n";
      return output;
    };
  });
}

}  // namespace qs::cli
