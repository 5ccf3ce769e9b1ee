#include "app/cli/cli.h"
#include "app/cli/variant_options.h"
#include "backend/evaluation/bench.h"
#include "backend/method_registry.h"
#include "backend/model/threads.h"

namespace qs::cli {
namespace {

struct DecodeOptions {
  std::string kv = "kivi", contexts = "1k,4k,16k", model, kv_calibration,
              prompt = "Once upon a time there was a little girl";
  DecodeBenchRequest request;
  std::int64_t prompt_tokens = 512, new_tokens = 128;
  int threads = 0;
};

/// Setups are separated by blanks or semicolons, because commas separate their parameters.
std::vector<Setup> parse_setups(std::string text) {
  for (char& c : text) c = c == ' ' ? ';' : c;
  std::vector<Setup> setups;
  for (const std::string& part : split(text, ';')) {
    if (const std::optional<Setup> setup = kv_setup(part)) setups.push_back(*setup);
  }
  return setups;
}

/// One token times a weight, at the sizes of the LUT-GEMM paper.
void add_gemv_table(const KernelBench& bench, Output& output) {
  output.json["gemv"] = Json::array();
  Table table({"weight", "n x k", "threads", "ms", "of copy", "x f32", "x f16", "x bf16", "x torch f32", "x torch f16",
               "x torch bf16"});
  for (const GemvBenchRow& row : bench.gemv) {
    output.json["gemv"].push_back({{"weight", row.storage},
                                   {"out_features", row.out_features},
                                   {"in_features", row.in_features},
                                   {"threads", row.threads},
                                   {"ms", row.ms},
                                   {"bandwidth_share", row.bandwidth_share},
                                   {"times_f32", row.times_f32},
                                   {"times_f16", row.times_f16},
                                   {"times_bf16", row.times_bf16},
                                   {"times_torch_f32", number(row.times_torch_f32)},
                                   {"times_torch_f16", number(row.times_torch_f16)},
                                   {"times_torch_bf16", number(row.times_torch_bf16)}});
    table.row({row.storage, std::to_string(row.out_features) + " x " + std::to_string(row.in_features),
               std::to_string(row.threads), significant(row.ms, 3), fixed(100 * row.bandwidth_share, 0) + "%",
               fixed(row.times_f32, 2), fixed(row.times_f16, 2), fixed(row.times_bf16, 2),
               fixed(row.times_torch_f32, 2), fixed(row.times_torch_f16, 2), fixed(row.times_torch_bf16, 2)});
  }
  output.text += "\none token times a weight n x k, groups of 128:\n" + table.text();
}

Output kernels_output(const KernelBench& bench) {
  Output output{{{"kernel_set", bench.kernel_set},
                 {"torch_version", bench.torch_version},
                 {"threads", bench.threads},
                 {"copy_bandwidth", bench.copy_bandwidth},
                 {"kernels", Json::array()}},
                {}};
  Table table({"kernel", "shape", "ns/element", "GB/s", "of copy", "x scalar", "x torch f32", "x torch bf16"});
  for (const KernelBenchRow& row : bench.rows) {
    output.json["kernels"].push_back({{"kernel", row.kernel},
                                      {"shape", row.shape},
                                      {"ns_per_element", row.ns_per_element},
                                      {"bytes_per_second", row.bytes_per_second},
                                      {"bandwidth_share", row.bandwidth_share},
                                      {"times_scalar", row.times_scalar},
                                      {"times_torch_f32", number(row.times_torch_f32)},
                                      {"times_torch_bf16", number(row.times_torch_bf16)}});
    table.row({row.kernel, row.shape, significant(row.ns_per_element, 3), fixed(row.bytes_per_second / 1e9, 2),
               fixed(100 * row.bandwidth_share, 0) + "%", fixed(row.times_scalar, 2), fixed(row.times_torch_f32, 2),
               fixed(row.times_torch_bf16, 2)});
  }
  output.text = "kernels: " + bench.kernel_set + ", 1 thread, LibTorch " + bench.torch_version + ", copy bandwidth " +
                fixed(bench.copy_bandwidth / 1e9, 1) + " GB/s\n" + table.text();
  add_gemv_table(bench, output);
  return output;
}

Output decode_output(const DecodeBench& bench) {
  Output output{{{"kernel_set", bench.kernel_set},
                 {"threads", bench.threads},
                 {"layers", bench.layers},
                 {"heads", bench.heads},
                 {"kv_heads", bench.kv_heads},
                 {"head_dim", bench.head_dim},
                 {"copy_bandwidth", bench.copy_bandwidth},
                 {"runs", Json::array()}},
                {}};
  Table table({"setup", "context", "attention ms", "tokens/s", "x f16", "x torch f32", "cache", "bytes/token", "bits",
               "of copy"});
  for (const DecodeBenchRow& row : bench.rows) {
    output.json["runs"].push_back({{"setup", row.setup},
                                   {"context", row.context},
                                   {"attention_ms", row.attention_ms},
                                   {"tokens_per_second", row.tokens_per_second},
                                   {"times_f16", row.times_f16},
                                   {"times_torch", row.times_torch},
                                   {"cache_bytes", row.cache_bytes},
                                   {"bytes_per_cached_token", row.bytes_per_cached_token},
                                   {"effective_bits", row.effective_bits},
                                   {"bandwidth_share", row.bandwidth_share}});
    table.row({row.setup, std::to_string(row.context), fixed(row.attention_ms, 3), fixed(row.tokens_per_second, 1),
               fixed(row.times_f16, 2), fixed(row.times_torch, 2), bytes_text(row.cache_bytes),
               fixed(row.bytes_per_cached_token, 0), fixed(row.effective_bits, 3),
               fixed(100 * row.bandwidth_share, 0) + "%"});
  }
  output.text = std::to_string(bench.layers) + " layers, " + std::to_string(bench.heads) + " heads / " +
                std::to_string(bench.kv_heads) + " KV heads of " + std::to_string(bench.head_dim) + ", " +
                std::to_string(bench.threads) + " threads, kernels " + bench.kernel_set + ", copy bandwidth " +
                fixed(bench.copy_bandwidth / 1e9, 1) + " GB/s\n" + table.text();
  return output;
}

Output model_output(const DecodeOptions& options, const JobContext& job) {
  const auto model = load({.path = options.model, .threads = options.threads}, job.part(0.0, 0.1));
  std::vector<std::shared_ptr<const Variant>> built = {
      make_variant(model, std::nullopt, std::nullopt, nullptr, WeightExecution::Simulated, job)};
  for (const Setup& setup : parse_setups(options.kv)) {
    const std::optional<KvArtifact> artifact = kv_calibration_from(*model, setup, options.kv_calibration, job.quiet());
    built.push_back(make_variant(model, std::nullopt, setup, nullptr, WeightExecution::Simulated, job,
                                 artifact ? &*artifact : nullptr));
  }
  std::vector<const Variant*> variants;
  for (const auto& variant : built) variants.push_back(variant.get());
  // A prompt of the asked length: the text over and over.
  const std::vector<std::int64_t> once = model->tokenizer().encode(options.prompt);
  std::vector<std::int64_t> prompt = encode_with_bos(model->tokenizer(), options.prompt);
  while (static_cast<std::int64_t>(prompt.size()) < options.prompt_tokens)
    prompt.insert(prompt.end(), once.begin(), once.end());
  prompt.resize(static_cast<std::size_t>(options.prompt_tokens));
  Output output{{{"model", model->info().name}, {"threads", threads()}, {"runs", Json::array()}}, {}};
  Table table(
      {"variant", "prompt", "prefill tokens/s", "decode tokens/s", "x full precision", "KV cache", "KV in f16"});
  for (const ModelBenchRow& row : bench_model(variants, prompt, options.new_tokens, job.part(0.1, 1.0))) {
    output.json["runs"].push_back({{"variant", row.variant},
                                   {"prompt_tokens", row.prompt_tokens},
                                   {"new_tokens", row.new_tokens},
                                   {"prefill_tokens_per_second", row.prefill_tokens_per_second},
                                   {"decode_tokens_per_second", row.decode_tokens_per_second},
                                   {"times_full_precision", row.times_full_precision},
                                   {"kv_bytes", row.kv_bytes},
                                   {"kv_bytes_full_precision", row.kv_bytes_f16}});
    table.row({row.variant, std::to_string(row.prompt_tokens), fixed(row.prefill_tokens_per_second, 0),
               fixed(row.decode_tokens_per_second, 1), fixed(row.times_full_precision, 2), bytes_text(row.kv_bytes),
               bytes_text(row.kv_bytes_f16)});
  }
  output.text = table.text();
  return output;
}

Output gptq_output(const GptqBench& bench) {
  Output output{{{"size", bench.size},
                 {"tokens", bench.tokens},
                 {"bits", bench.bits},
                 {"threads", bench.threads},
                 {"hessian_seconds", bench.hessian_seconds},
                 {"factor_seconds", bench.factor_seconds},
                 {"layer_seconds", bench.layer_seconds},
                 {"baseline_hessian_seconds", bench.baseline_hessian_seconds},
                 {"baseline_factor_seconds", bench.baseline_factor_seconds},
                 {"baseline_layer_seconds", bench.baseline_layer_seconds},
                 {"times_baseline", bench.times_baseline()},
                 {"equal_codes", bench.equal_codes},
                 {"spqr_seconds", bench.spqr_seconds},
                 {"spqr_outliers", bench.spqr_outliers},
                 {"products", Json::array()}},
                {}};
  Table table({"step", "seconds", "published program", "ratio"});
  const auto row = [&](const char* step, double own, double baseline) {
    table.row({step, fixed(own, 3), fixed(baseline, 3), fixed(baseline / own, 2)});
  };
  row("Hessian", bench.hessian_seconds, bench.baseline_hessian_seconds);
  row("factor", bench.factor_seconds, bench.baseline_factor_seconds);
  row("sweep and codes", bench.sweep_seconds(), bench.baseline_sweep_seconds());
  row("layer, from H to codes", bench.layer_seconds, bench.baseline_layer_seconds);
  output.text = "GPTQ of a " + std::to_string(bench.size) + " x " + std::to_string(bench.size) + " layer, " +
                std::to_string(bench.bits) + " bits, " + std::to_string(bench.tokens) + " tokens, " +
                std::to_string(bench.threads) + " threads; the published program is written in LibTorch\n" +
                table.text() + "equal codes: " + fixed(100.0 * bench.equal_codes, 3) + " %\n";
  if (bench.products.empty()) return output;
  Table products({"one token times the layer", "ms", "x torch f32", "x torch bf16"});
  for (const GptqBenchProduct& product : bench.products) {
    output.json["products"].push_back({{"weight", product.weight},
                                       {"ms", product.ms},
                                       {"times_f32", product.times_f32},
                                       {"times_bf16", product.times_bf16}});
    products.row({product.weight, fixed(product.ms, 3), fixed(product.times_f32, 2), fixed(product.times_bf16, 2)});
  }
  output.text += "SpQR of the layer, 3 bits, " + fixed(100.0 * bench.spqr_outliers, 2) +
                 " % outliers: " + fixed(bench.spqr_seconds, 3) + " s\n\n" + products.text();
  return output;
}

}  // namespace

void add_bench(CLI::App& app, Cli& cli) {
  CLI::App* verb = app.add_subcommand("bench", "measure speed, every comparison in one run");
  verb->require_subcommand(1);
  CLI::App* kernels = verb->add_subcommand("kernels", "each kernel against its scalar form and LibTorch");
  kernels->callback([&cli] { cli.work = [](const JobContext& job) { return kernels_output(bench_kernels(job)); }; });

  auto layer = std::make_shared<GptqBenchRequest>();
  auto layer_threads = std::make_shared<int>(0);
  CLI::App* gptq = verb->add_subcommand("gptq", "GPTQ of one layer against the published program");
  gptq->add_option("--size", layer->size, "input and output features of the layer")->check(CLI::Range(16, 32768));
  gptq->add_option("--tokens", layer->tokens, "tokens of the Hessian")->check(CLI::Range(1, 1048576));
  gptq->add_option("--bits", layer->bits)->check(CLI::Range(2, 8));
  gptq->add_option("--threads", *layer_threads)->check(CLI::Range(0, 1024));
  gptq->callback([&cli, layer, layer_threads] {
    cli.work = [layer, layer_threads](const JobContext& job) {
      set_threads(*layer_threads);
      return gptq_output(bench_gptq(*layer, job));
    };
  });

  auto options = std::make_shared<DecodeOptions>();
  CLI::App* decode = verb->add_subcommand("decode", "decode attention of KV setups against the f16 cache");
  decode->add_option("--kv", options->kv, "setups, separated by blanks or semicolons");
  decode->add_option("--context", options->contexts, "tokens in the cache, such as 1k,4k,16k");
  decode->add_option("--layers", options->request.layers)->check(CLI::Range(1, 1024));
  decode->add_option("--heads", options->request.heads)->check(CLI::Range(1, 1024));
  decode->add_option("--kv-heads", options->request.kv_heads)->check(CLI::Range(1, 1024));
  decode->add_option("--head-dim", options->request.head_dim)->check(CLI::Range(8, 512));
  decode->add_option("--steps", options->request.steps, "decode steps timed at each context")
      ->check(CLI::Range(1, 4096));
  decode->add_option("--threads", options->threads)->check(CLI::Range(0, 1024));
  decode->add_option("--model", options->model, "measure prefill and decode of this model instead of random weights");
  decode->add_option(
      "--kv-calibration", options->kv_calibration,
      "with --model: calibration (.h5) or text of calibrated setups; without a model they are calibrated "
      "on the random keys and values");
  decode->add_option("--prompt-tokens", options->prompt_tokens, "with --model")->check(CLI::PositiveNumber);
  decode->add_option("--new-tokens", options->new_tokens, "with --model")->check(CLI::PositiveNumber);
  decode->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      set_threads(options->threads);
      if (!options->model.empty()) return model_output(*options, job);
      DecodeBenchRequest request = options->request;
      request.setups = parse_setups(options->kv);
      request.contexts = parse_counts(options->contexts);
      return decode_output(bench_decode(request, job));
    };
  });
}

}  // namespace qs::cli
