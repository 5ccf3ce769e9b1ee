#include "app/cli/cli.h"
#include "app/cli/variant_options.h"
#include "backend/evaluation/evaluate.h"
#include "backend/storage/results_file.h"

namespace qs::cli {
namespace {

struct EvalOptions {
  VariantOptions variant;
  std::string text, tasks = "ppl,kl,top1", kv_mode = "streaming", out;
  std::int64_t window = 0, windows = 0;
  bool bos_each_window = false;
  std::uint64_t seed = 0;
};

Json report_json(const EvalReport& report) {
  const Protocol& p = report.protocol;
  Json json = {
      {"variant", {{"model", report.variant.model}, {"weights", report.variant.weights}, {"kv", report.variant.kv}}},
      {"protocol",
       {{"text", p.text_name},
        {"text_sha256", p.text_sha256},
        {"tokenizer", p.tokenizer},
        {"window", p.window},
        {"stride", p.stride},
        {"windows", p.windows},
        {"bos_each_window", p.bos},
        {"kv_mode", kv_mode_id(p.kv_mode)},
        {"dtype", p.dtype},
        {"device", p.device},
        {"joining_rule", p.joining_rule},
        {"prompt_template", p.prompt_template},
        {"shots", p.shots}}},
      {"fingerprint", report.fingerprint},
      {"tasks", Json::array()},
      {"memory",
       {{"weights_bytes", report.memory.weights_bytes},
        {"kv_bytes", report.memory.kv_bytes},
        {"kv_bytes_full_precision", report.memory.kv_bytes_full_precision},
        {"peak_rss", report.memory.peak_rss}}},
      {"effective_bits", {{"weights", report.weight_bits}, {"kv", report.kv_bits}}},
      {"seed", report.seed},
      {"program_version", report.program_version},
      {"model_fingerprint", report.model_fingerprint}};
  for (const TaskResult& task : report.tasks) {
    json["tasks"].push_back({{"task", task.task},
                             {"metric", task.metric},
                             {"value", number(task.value)},
                             {"standard_error", number(task.standard_error)},
                             {"n", task.n},
                             {"seconds", task.seconds}});
  }
  return json;
}

std::string report_text(const EvalReport& report) {
  std::string text = report.variant.text() + "\n";
  Table table({"task", "metric", "value", "standard error", "n", "seconds"});
  for (const TaskResult& task : report.tasks) {
    table.row({task.task, task.metric, significant(task.value, 6), significant(task.standard_error, 3),
               std::to_string(task.n), fixed(task.seconds, 2)});
  }
  const Protocol& p = report.protocol;
  return text + table.text() + "effective bits: weights " + fixed(report.weight_bits, 3) + ", KV " +
         fixed(report.kv_bits, 3) + "; KV cache of one window " + bytes_text(report.memory.kv_bytes) +
         " (f16: " + bytes_text(report.memory.kv_bytes_full_precision) + ")\n" + "protocol " + report.fingerprint +
         ": " + p.text_name + ", " + std::to_string(p.windows) + " windows of " + std::to_string(p.window) + ", " +
         kv_mode_id(p.kv_mode) + ", " + p.dtype + "\n";
}

}  // namespace

void add_eval(CLI::App& app, Cli& cli) {
  auto options = std::make_shared<EvalOptions>();
  CLI::App* verb = app.add_subcommand("eval", "perplexity, KL divergence and top-1 agreement of a variant");
  add_variant_options(*verb, options->variant);
  verb->add_option("--task", options->tasks, "ppl,kl,top1");
  verb->add_option("--text", options->text, "UTF-8 text file")->required();
  verb->add_option("--window", options->window, "tokens per window; default: the smaller of 2048 and the context")
      ->check(CLI::PositiveNumber);
  verb->add_option("--windows", options->windows, "how many; default: all")->check(CLI::PositiveNumber);
  verb->add_option("--kv-mode", options->kv_mode)->check(CLI::IsMember({"streaming", "prefill_quantized"}));
  verb->add_flag("--bos-each-window", options->bos_each_window, "start each window with BOS");
  verb->add_option("--seed", options->seed);
  verb->add_option("-o,--output", options->out, "results file (HDF5) to write");
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      const std::optional<Setup> kv = kv_setup(options->variant.kv), weights = weight_setup(options->variant.weights);
      EvalRequest request;
      request.tasks = split(options->tasks);
      for (const std::string& task : request.tasks) {
        if (task != "ppl" && task != "kl" && task != "top1") {
          throw UsageError{"There is no task '" + task + "'; known are: ppl, kl, top1."};
        }
      }
      request.text = read_text(resolve_path(options->text));
      request.window = options->window;
      request.windows = options->windows;
      request.bos_each_window = options->bos_each_window;
      request.seed = options->seed;
      request.kv_mode = options->kv_mode == "streaming" ? KvMode::Streaming : KvMode::PrefillQuantized;
      const auto variant = build(options->variant, weights, kv, job.part(0.0, 0.2));
      const auto reference = make_variant(variant->shared_model(), std::nullopt, std::nullopt, nullptr,
                                          WeightExecution::Simulated, job.part(0.2, 0.2));
      const EvalReport report = evaluate(*variant, *reference, request, job.part(0.2, 1.0));
      if (!options->out.empty()) write_results(options->out, {report});
      return Output{report_json(report), report_text(report)};
    };
  });
}

}  // namespace qs::cli
