#include "app/cli/cli.h"
#include "backend/evaluation/kv_calibration.h"
#include "backend/method_registry.h"
#include "backend/storage/kv_artifact.h"

namespace qs::cli {

void add_calibrate(CLI::App& app, Cli& cli) {
  struct Options {
    ModelOptions model;
    std::string kv, text, out;
    KvCalibrationRequest request;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("calibrate", "let a KV setup learn from a text and keep the result");
  add_model_options(*verb, options->model);
  verb->add_option("--kv", options->kv, "KV setup with calibration, such as skvq")->required();
  verb->add_option("--text", options->text, "UTF-8 text file")->required();
  verb->add_option("--windows", options->request.windows, "sequences, at random places of the text")
      ->check(CLI::Range(1, 65536));
  verb->add_option("--window", options->request.window,
                   "tokens of each; default: the smaller of 2048, the context and the text")
      ->check(CLI::PositiveNumber);
  verb->add_option("--seed", options->request.seed, "of the places and of the method");
  verb->add_option("-o,--output", options->out, "calibration file (HDF5)")->required();
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      const std::optional<Setup> setup = kv_setup(options->kv);
      if (!setup) throw UsageError{"A KV setup with calibration is needed; 'none' has nothing to learn."};
      KvCalibrationRequest request = options->request;
      request.text = read_text(resolve_path(options->text));
      const auto model = load(options->model, job.part(0.0, 0.2));
      const KvArtifact artifact = calibrate_kv(*model, *setup, request, job.part(0.2, 1.0));
      write_kv_artifact(options->out, artifact);
      const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(options->out));
      Output output;
      output.json = {{"path", options->out},
                     {"method", artifact.method},
                     {"setup", artifact.setup},
                     {"model", artifact.model_name},
                     {"model_fingerprint", artifact.model_fingerprint},
                     {"text", artifact.source},
                     {"text_sha256", artifact.source_sha256},
                     {"windows", artifact.windows},
                     {"window", artifact.window},
                     {"tokens", artifact.tokens},
                     {"seed", artifact.seed},
                     {"layers", artifact.layers.size()},
                     {"bytes", bytes}};
      output.text = options->out + ": " + artifact.setup + " on " + artifact.model_name + ", " +
                    std::to_string(artifact.layers.size()) + " layers, from " + artifact.source + " (" +
                    std::to_string(artifact.windows) + " windows of " + std::to_string(artifact.window) +
                    " tokens, seed " + std::to_string(artifact.seed) + "), " + bytes_text(bytes) + "\n";
      return output;
    };
  });
}

}  // namespace qs::cli
