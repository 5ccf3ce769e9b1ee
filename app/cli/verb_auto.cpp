#include "app/cli/cli.h"
#include "backend/evaluation/kv_auto.h"
#include "backend/formats/safe_write.h"

namespace qs::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string text, candidates, calibration, kv_mode = "streaming", output, cache;
  double budget_bits = 0.0, bytes_a_token = 0.0;
  std::int64_t tokens = 0, window = 0, windows = 2;
};

/// Candidates are separated by semicolons, because commas separate their parameters.
std::vector<Setup> parse_candidates(const std::string& text) {
  std::vector<Setup> setups;
  for (const std::string& part : split(text, ';'))
    setups.push_back(kv_setup(part).value_or(Setup{.method = "none", .params = {}}));
  if (setups.empty()) throw UsageError{"--candidates needs setups separated by semicolons, such as kivi;kivi:bits=4."};
  return setups;
}

Output auto_output(const KvAutoResult& result) {
  Output output{{{"model", result.model},
                 {"budget_bits", result.budget_bits},
                 {"budget_bytes_per_token", result.bytes_a_token(result.budget_bits)},
                 {"tokens", result.budget_tokens},
                 {"window", result.window},
                 {"windows", result.windows},
                 {"check_windows", result.check_windows},
                 {"checked_on_other_windows", result.checked_on_other_windows},
                 {"setup", result.setup},
                 {"bits", result.bits},
                 {"bytes_per_token", result.bytes_a_token(result.bits)},
                 {"calibration", result.calibration},
                 {"measured", result.measured},
                 {"remembered", result.remembered},
                 {"predicted_kl", number(result.predicted_kl)},
                 {"measured_kl", number(result.measured_kl)},
                 {"best_uniform", result.best_uniform},
                 {"uniform_bits", result.uniform_bits},
                 {"uniform_kl", number(result.uniform_kl)},
                 {"better_than_uniform", result.better},
                 {"choice", result.choice},
                 {"candidates", Json::array()}},
                {}};
  std::vector<std::string> header = {"candidate", "bits", "KL, all layers"};
  for (std::size_t layer = 0; layer < result.choice.size(); ++layer)
    header.push_back("layer " + std::to_string(layer) + " alone");
  Table table(std::move(header));
  for (std::size_t i = 0; i < result.candidates.size(); ++i) {
    const KvAutoCandidate& candidate = result.candidates[i];
    output.json["candidates"].push_back({{"setup", candidate.setup},
                                         {"bits", candidate.bits},
                                         {"fits", candidate.fits},
                                         {"uniform_kl", number(candidate.uniform_kl)},
                                         {"layer_kl", candidate.layer_kl}});
    std::vector<std::string> row = {candidate.setup, fixed(candidate.bits, 3), significant(candidate.uniform_kl, 4)};
    for (std::size_t layer = 0; layer < result.choice.size(); ++layer)
      row.push_back(significant(candidate.layer_kl[layer], 3) + (result.choice[layer] == i ? " *" : ""));
    table.row(std::move(row));
  }
  output.text = result.model + ", KL divergence in nats a token, " + std::to_string(result.windows) + " windows of " +
                std::to_string(result.window) + " tokens, checked on " + std::to_string(result.check_windows) +
                (result.checked_on_other_windows ? " others" : " (the same)") + "\n" + table.text() + "\n" +
                result.setup + "\n" + fixed(result.bits, 3) + " bits of " + fixed(result.budget_bits, 3) + ", " +
                fixed(result.bytes_a_token(result.bits), 0) + " B a token at " + std::to_string(result.budget_tokens) +
                " tokens, KL " + significant(result.measured_kl, 4) + " (sum of the layers " +
                significant(result.predicted_kl, 4) + ")\n";
  if (result.best_uniform.empty()) {
    output.text += "No uniform candidate fits the budget.\n";
  } else {
    output.text += "best uniform: " + result.best_uniform + ", " + fixed(result.uniform_bits, 3) + " bits, KL " +
                   significant(result.uniform_kl, 4) +
                   (result.better ? "\n" : ": better than the assembled setup; use it\n");
  }
  return output;
}

}  // namespace

void add_auto(CLI::App& app, Cli& cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("auto", "Choose a KV setup for each layer within a budget of bits or bytes");
  add_model_options(*verb, options->model);
  verb->add_option("--text", options->text, "UTF-8 text file to measure on")->required();
  CLI::Option* bits = verb->add_option("--budget-bits", options->budget_bits,
                                       "effective bits an element, mean over the layers; default: 3")
                          ->check(CLI::Range(1.0, 32.0));
  verb->add_option("--bytes-per-token", options->bytes_a_token, "the budget in bytes of all layers instead")
      ->check(CLI::PositiveNumber)
      ->excludes(bits);
  verb->add_option("--tokens", options->tokens, "in the cache that the budget is for; default: a window")
      ->check(CLI::PositiveNumber);
  verb->add_option("--candidates", options->candidates, "setups of a layer, separated by semicolons")->required();
  verb->add_option("--calibration", options->calibration,
                   "text that calibrated candidates learn from; default: the one of --text");
  verb->add_option("--cache", options->cache,
                   "folder that remembers calibrations and measurements; a search that was stopped goes on from there");
  verb->add_option("--window", options->window, "tokens; default: 2048 or the model's context")
      ->check(CLI::PositiveNumber);
  verb->add_option("--windows", options->windows, "to measure each layer on; as many others check the result")
      ->check(CLI::PositiveNumber);
  verb->add_option("--kv-mode", options->kv_mode)->check(CLI::IsMember({"streaming", "prefill_quantized"}));
  verb->add_option("-o,--output", options->output, "JSON file to write the result to");
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      KvAutoRequest request;
      request.candidates = parse_candidates(options->candidates);
      request.budget_tokens = options->tokens;
      request.folder = options->cache;
      if (!options->calibration.empty()) request.calibration = read_text(resolve_path(options->calibration));
      request.evaluation.text = read_text(resolve_path(options->text));
      request.evaluation.window = options->window;
      request.evaluation.windows = options->windows;
      request.evaluation.kv_mode = options->kv_mode == "streaming" ? KvMode::Streaming : KvMode::PrefillQuantized;
      const auto model = load(options->model, job.part(0.0, 0.05));
      if (options->bytes_a_token > 0.0)
        request.budget_bits = bits_of_bytes_a_token(model->spec(), options->bytes_a_token);
      else if (options->budget_bits > 0.0)
        request.budget_bits = options->budget_bits;
      Output output = auto_output(choose_kv_setups(model, request, job.part(0.05, 1.0)));
      if (!options->output.empty()) write_file_safely(options->output, output.json.dump(2) + "\n");
      return output;
    };
  });
}

}  // namespace qs::cli
