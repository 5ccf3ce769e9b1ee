#include "app/cli/cli.h"
#include "backend/evaluation/evaluate.h"
#include "backend/storage/capture.h"

namespace qs::cli {

void add_capture(CLI::App& app, Cli& cli) {
  struct Options {
    ModelOptions model;
    std::string text, out, taps;
    std::int64_t tokens = 0, window = 0;
    bool weights = false, portable = false, append = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("capture", "run a text and keep keys, values and statistics in an HDF5 file");
  add_model_options(*verb, options->model);
  verb->add_option("--text", options->text, "UTF-8 text file")->required();
  verb->add_option("--tokens", options->tokens, "tokens to run; default: the model's context")
      ->check(CLI::PositiveNumber);
  verb->add_option("--window", options->window, "tokens of one forward pass; default: the model's context")
      ->check(CLI::PositiveNumber);
  verb->add_option("--taps", options->taps, "key,key_pre_rope,value,query,attention,activations; default: all");
  verb->add_flag("--weights", options->weights, "store the weights too");
  verb->add_flag("--portable", options->portable, "store float32 instead of 16-bit floats");
  verb->add_flag("--append", options->append, "add to an existing capture of the same model");
  verb->add_option("-o,--output", options->out, "capture file")->required();
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      CaptureRequest request;
      if (!options->taps.empty()) {
        const std::set<std::string> known = request.taps;
        request.taps.clear();
        for (const std::string& tap : split(options->taps)) {
          if (!known.contains(tap)) {
            std::string all;
            for (const std::string& name : known) all += (all.empty() ? "" : ", ") + name;
            throw UsageError{"There is no tap '" + tap + "'; known are: " + all + "."};
          }
          request.taps.insert(tap);
        }
      }
      const auto model = load(options->model, job.part(0.0, 0.2));
      const EvalText text = read_text(resolve_path(options->text));
      request.ids = encode_with_bos(model->tokenizer(), text.text);
      const std::int64_t wanted = options->tokens > 0 ? options->tokens : model->info().max_context;
      if (static_cast<std::int64_t>(request.ids.size()) < options->tokens) {
        throw Error(ErrorCode::InvalidArgument, "'" + options->text + "' has " + std::to_string(request.ids.size()) +
                                                    " tokens, " + std::to_string(options->tokens) +
                                                    " were asked for. Name a longer text or fewer --tokens.");
      }
      request.ids.resize(std::min<std::size_t>(request.ids.size(), static_cast<std::size_t>(wanted)));
      request.text_source = text.name;
      request.text_sha256 = text.sha256;
      request.window = options->window;
      request.weights = options->weights;
      request.portable_f32 = options->portable;
      const CaptureForecast forecast = forecast_capture(model->info(), request, options->out);
      const CaptureInfo info = capture(*model, request, options->out, options->append, job.part(0.2, 1.0));
      const auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(options->out));
      Output output;
      output.json = {{"path", info.path},
                     {"tokens", info.tokens},
                     {"layers", info.layers},
                     {"complete", info.complete},
                     {"bytes", bytes},
                     {"forecast_bytes", forecast.bytes},
                     {"datasets", info.datasets.size()}};
      output.text = options->out + ": " + std::to_string(info.tokens) + " tokens, " + std::to_string(info.layers) +
                    " layers, " + std::to_string(info.datasets.size()) + " datasets, " + bytes_text(bytes) +
                    " (forecast at most " + bytes_text(forecast.bytes) + ")\n";
      return output;
    };
  });
}

}  // namespace qs::cli
