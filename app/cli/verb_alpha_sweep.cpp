#include <algorithm>
#include <cstdio>

#include "app/cli/cli.h"
#include "app/cli/variant_options.h"
#include "backend/evaluation/alpha_sweep.h"

namespace qs::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string text, calibration, alphas = "0.35:0.90:0.05", bits = "8x8", mode = "model", kv_mode = "streaming";
  std::int64_t window = 0, windows = 0, calibration_tokens = 4096;
};

std::vector<std::pair<int, int>> parse_bits(const std::string& text) {
  std::vector<std::pair<int, int>> schemes;
  for (const std::string& part : split(text)) {
    int w = 0, a = 0;
    char cross = 0;
    if (std::sscanf(part.c_str(), "%d%c%d", &w, &cross, &a) != 3 || cross != 'x' || w < 2 || w > 16 || a < 2 ||
        a > 16) {
      throw UsageError{"'" + text + "' must be weight x activation widths such as 8x8,6x6, each 2 to 16."};
    }
    schemes.emplace_back(w, a);
  }
  return schemes;
}

const char* state_id(AlphaPoint::State state) {
  switch (state) {
    case AlphaPoint::State::Pending:
      return "pending";
    case AlphaPoint::State::Done:
      return "done";
    case AlphaPoint::State::Failed:
      return "failed";
    case AlphaPoint::State::Cached:
      return "cached";
  }
  return "";
}

Output sweep_output(const AlphaSweepResult& result) {
  Output output{{{"model", result.model},
                 {"metric", result.metric},
                 {"fingerprint", result.fingerprint},
                 {"full_precision", number(result.full_precision)},
                 {"pairs", result.pairs},
                 {"schemes", Json::array()}},
                {}};
  output.text =
      result.model + ", " + result.metric + ", full precision " + significant(result.full_precision, 6) + "\n";
  for (const AlphaScheme& scheme : result.schemes) {
    Json points = Json::array();
    Table table({"alpha", scheme.label + " " + result.metric, "95 % low", "95 % high", "mean layer MSE"});
    const AlphaPoint* best = nullptr;
    for (const AlphaPoint& point : scheme.points) {
      double mean = 0.0;
      for (const double mse : point.layer_mse) mean += mse / static_cast<double>(point.layer_mse.size());
      points.push_back({{"alpha", point.alpha},
                        {"state", state_id(point.state)},
                        {"value", number(point.value)},
                        {"low", number(point.low)},
                        {"high", number(point.high)},
                        {"layer_mse", point.layer_mse},
                        {"failure", point.failure}});
      table.row({fixed(point.alpha, 2), significant(point.value, 6), significant(point.low, 6),
                 significant(point.high, 6), significant(mean, 4)});
      const bool usable = point.state == AlphaPoint::State::Done || point.state == AlphaPoint::State::Cached;
      if (usable && (!best || point.value < best->value)) best = &point;
    }
    const std::string per_layer = best_alpha_setup(scheme, result.layers);
    output.json["schemes"].push_back({{"label", scheme.label},
                                      {"bits_w", scheme.bits_w},
                                      {"bits_a", scheme.bits_a},
                                      {"points", points},
                                      {"least_layer_error", per_layer}});
    output.text += table.text();
    if (best) {
      output.text += "best alpha " + fixed(best->alpha, 2);
      if (best == &scheme.points.front() || best == &scheme.points.back())
        output.text += ": on the edge of the grid, widen it";
      output.text += "\n";
    }
    if (!per_layer.empty()) output.text += "least layer error, layer by layer: " + per_layer + "\n";
  }
  return output;
}

}  // namespace

void add_alpha_sweep(CLI::App& app, Cli& cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("alpha-sweep", "SmoothQuant's migration strength against quality");
  add_model_options(*verb, options->model);
  verb->add_option("--text", options->text, "UTF-8 text file to evaluate on")->required();
  verb->add_option("--calibration", options->calibration, "text or capture to calibrate on; default: --text");
  verb->add_option("--calibration-tokens", options->calibration_tokens)->check(CLI::PositiveNumber);
  verb->add_option("--alphas", options->alphas, "first:last:step or a list");
  verb->add_option("--bits", options->bits, "weight x activation widths, such as 8x8,6x6");
  verb->add_option("--mode", options->mode,
                   "model (perplexity) or layer (output error on inputs that the calibration kept)")
      ->check(CLI::IsMember({"model", "layer"}));
  verb->add_option("--window", options->window)->check(CLI::PositiveNumber);
  verb->add_option("--windows", options->windows)->check(CLI::PositiveNumber);
  verb->add_option("--kv-mode", options->kv_mode)->check(CLI::IsMember({"streaming", "prefill_quantized"}));
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      AlphaSweepRequest request;
      request.alphas = parse_grid(options->alphas);
      for (const double alpha : request.alphas) {
        if (alpha < 0.0 || alpha > 1.0) throw UsageError{"alpha must be 0 to 1, found " + significant(alpha, 6) + "."};
      }
      request.bits = parse_bits(options->bits);
      request.model_mode = options->mode == "model";
      request.evaluation.text = read_text(resolve_path(options->text));
      request.evaluation.tasks = {"ppl"};
      request.evaluation.window = options->window;
      request.evaluation.windows = options->windows;
      request.evaluation.kv_mode = options->kv_mode == "streaming" ? KvMode::Streaming : KvMode::PrefillQuantized;
      const auto model = load(options->model, job.part(0.0, 0.05));
      const Calibration calibration =
          calibration_from(*model, options->calibration.empty() ? options->text : options->calibration,
                           options->calibration_tokens, true, job.part(0.05, 0.15));
      return sweep_output(alpha_sweep(model, calibration, request, nullptr, {}, job.part(0.15, 1.0)));
    };
  });
}

}  // namespace qs::cli
