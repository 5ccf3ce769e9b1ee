#include <cmath>

#include "app/cli/cli.h"
#include "app/cli/variant_options.h"
#include "backend/evaluation/layer_statistics.h"
#include "backend/formats/safe_write.h"

namespace qs::cli {
namespace {

struct Options {
  VariantOptions variant;
  std::string what = "statistics", text, csv, kv_mode = "streaming";
  std::int64_t window = 0, windows = 0;
  std::uint64_t seed = 1234;
};

constexpr std::int64_t kStatisticsWindows = 10;
constexpr std::int64_t kDistanceWindows = 1;

/// Small magnitudes in scientific notation, on screen only.
std::string shown(double value) {
  if (std::isinf(value)) return "exact";
  char text[32];
  std::snprintf(text, sizeof text, value != 0.0 && std::abs(value) < 1e-4 ? "%.3e" : "%.5g", value);
  return std::isnan(value) ? "-" : text;
}

Json place_json(const LinearPlace& place) {
  return {{"layer", place.layer}, {"name", place.name}, {"linear", place.linear}, {"expert", place.expert}};
}

template <typename Result>
Output begin_output(const Result& result, const char* what) {
  const Protocol& p = result.protocol;
  Output output{
      {{"what", what},
       {"variant", {{"model", result.variant.model}, {"weights", result.variant.weights}, {"kv", result.variant.kv}}},
       {"protocol",
        {{"text", p.text_name},
         {"text_sha256", p.text_sha256},
         {"window", p.window},
         {"windows", p.windows},
         {"kv_mode", kv_mode_id(p.kv_mode)},
         {"dtype", p.dtype},
         {"joining_rule", p.joining_rule}}},
       {"fingerprint", result.fingerprint},
       {"linears", Json::array()}},
      {}};
  output.text = result.variant.text() + "\n";
  return output;
}

Output statistics_output(const LayerStatistics& result) {
  Output output = begin_output(result, "statistics");
  std::vector<std::string> header = {"layer"};
  if (!result.linears.empty())
    for (const auto& [name, value] : result.linears.front().values) header.push_back(name);
  Table table(header);
  for (const LinearStatistics& linear : result.linears) {
    Json row = place_json(linear.place), values = Json::object();
    std::vector<std::string> cells = {linear.place.name};
    for (const auto& [name, value] : linear.values) {
      values[name] = number(value);
      cells.push_back(shown(value));
    }
    cells.resize(header.size(), "-");
    row["values"] = values;
    row["exact_windows"] = linear.exact_windows;
    row["windows"] = linear.windows;
    row["tokens"] = linear.tokens;
    output.json["linears"].push_back(row);
    table.row(cells);
  }
  output.text += "Local error of every linear, given the input that reaches it; means over " +
                 std::to_string(result.protocol.windows) + " windows of " + std::to_string(result.protocol.window) +
                 " tokens, SQNR in dB.\n" + table.text() + "protocol " + result.fingerprint + "\n";
  return output;
}

Output distance_output(const LayerDistance& result) {
  Output output = begin_output(result, "distance");
  output.json["seed"] = result.seed;
  output.json["starts"] = result.starts;
  output.json["notes"] = result.notes;
  Table table({"layer", "mse", "sqnr"});
  for (const LinearDistance& linear : result.linears) {
    Json row = place_json(linear.place);
    row["sqnr_db"] = number(linear.sqnr_db);
    row["mse"] = number(linear.mse);
    row["exact_windows"] = linear.exact_windows;
    row["windows"] = linear.windows;
    output.json["linears"].push_back(row);
    table.row({linear.place.name, shown(linear.mse), shown(linear.sqnr_db)});
  }
  output.text += "Accumulated error at the input of every linear, against the model in full precision; " +
                 std::to_string(result.protocol.windows) + " windows of " + std::to_string(result.protocol.window) +
                 " tokens, SQNR in dB.\n" + table.text();
  for (const std::string& note : result.notes) output.text += note + "\n";
  output.text += "protocol " + result.fingerprint + "\n";
  return output;
}

template <typename Result>
void write_csv(const std::string& path, const Result& result) {
  if (!path.empty()) write_file_safely(path, csv_text(result));
}

}  // namespace

void add_layers(CLI::App& app, Cli& cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand(
      "layers", "statistics of every linear of a quantized model, or its distance from the original");
  add_variant_options(*verb, options->variant);
  verb->add_option("--what", options->what,
                   "statistics (local error of every linear) or distance (accumulated error at its input)")
      ->check(CLI::IsMember({"statistics", "distance"}));
  verb->add_option("--text", options->text, "UTF-8 text file")->required();
  verb->add_option("--window", options->window, "tokens per window; default: the smaller of 2048 and the context")
      ->check(CLI::PositiveNumber);
  verb->add_option("--windows", options->windows, "how many; default: 10, of distance 1")->check(CLI::PositiveNumber);
  verb->add_option("--seed", options->seed, "of the random starts of distance");
  verb->add_option("--kv-mode", options->kv_mode)->check(CLI::IsMember({"streaming", "prefill_quantized"}));
  verb->add_option("--csv", options->csv, "file to write the table to");
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext& job) {
      const std::optional<Setup> kv = kv_setup(options->variant.kv), weights = weight_setup(options->variant.weights);
      const EvalText text = read_text(resolve_path(options->text));
      const KvMode mode = options->kv_mode == "streaming" ? KvMode::Streaming : KvMode::PrefillQuantized;
      const BuiltVariant built = build_with_inputs(options->variant, weights, kv, job.part(0.0, 0.4));
      const DecoderWeights unrounded =
          unrounded_weights(built.variant->model(), weights, built.inputs->context, job.part(0.4, 0.5));
      const auto windows = [&](std::int64_t usual) { return options->windows > 0 ? options->windows : usual; };
      const JobContext rest = job.part(0.5, 1.0);
      if (options->what == "distance") {
        const DistanceRequest request{text, options->window, windows(kDistanceWindows), options->seed, mode};
        const LayerDistance result = layer_distance(*built.variant, unrounded, request, rest);
        write_csv(options->csv, result);
        return distance_output(result);
      }
      EvalRequest request{.text = text, .window = options->window, .windows = windows(kStatisticsWindows)};
      request.kv_mode = mode;
      const LayerStatistics result = layer_statistics(*built.variant, unrounded, request, rest);
      write_csv(options->csv, result);
      return statistics_output(result);
    };
  });
}

}  // namespace qs::cli
