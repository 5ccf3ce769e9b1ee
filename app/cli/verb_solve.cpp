#include <algorithm>

#include "app/cli/cli.h"
#include "backend/evaluation/solve_bits.h"
#include "backend/method_registry.h"
#include "backend/model/model_source.h"

namespace qs::cli {
namespace {

struct Options {
  std::string setup, side, key, model;
  double bits = 0.0;
  std::int64_t tokens = 0;
};

bool is_kv(const Options& options) {
  if (!options.side.empty()) return options.side == "kv";
  const std::string id = options.setup.substr(0, options.setup.find_first_of(":+"));
  const std::vector<MethodInfo> weights = weight_method_infos();
  const auto named = [&id](const MethodInfo& info) { return info.id == id; };
  const std::vector<MethodInfo> kv = kv_method_infos();
  return std::any_of(kv.begin(), kv.end(), named) || std::none_of(weights.begin(), weights.end(), named);
}

Json point_json(const std::optional<BitsPoint>& point) {
  if (!point) return nullptr;
  return {{"value", std::visit([](const auto& value) { return Json(value); }, point->value)},
          {"bits", point->bits},
          {"setup", point->setup}};
}

Output solution_output(const BitsSolution& solution, const BitsShape& shape, bool kv) {
  Output output{{{"key", solution.key},
                 {"target_bits", solution.target_bits},
                 {"reached", solution.reached()},
                 {"best", point_json(solution.best)},
                 {"below", point_json(solution.below)},
                 {"above", point_json(solution.above)},
                 {"least_bits", solution.least_bits},
                 {"most_bits", solution.most_bits},
                 {"tokens", shape.tokens},
                 {"tried", solution.tried},
                 {"refused", solution.refused},
                 {"why_not", solution.why_not()}},
                {}};
  std::vector<std::string> header = {"", solution.key, "bits", "setup"};
  if (kv) header.insert(header.begin() + 3, "bytes a token");
  Table table(std::move(header));
  const auto row = [&](const char* name, const std::optional<BitsPoint>& point) {
    if (!point) return;
    std::vector<std::string> cells = {name, format_value(point->value), fixed(point->bits, 4), point->setup};
    if (kv) {
      cells.insert(cells.begin() + 3,
                   fixed(point->bits * static_cast<double>(shape.cached_elements_per_token()) / 8.0, 1));
    }
    table.row(std::move(cells));
  };
  row("fewer bits", solution.below);
  row("solution", solution.best);
  row("more bits", solution.above);
  output.text = table.text();
  if (!solution.reached()) output.text += solution.why_not() + "\n";
  if (kv) output.text += "Effective bits of a cached element at " + std::to_string(shape.tokens) + " tokens.\n";
  return output;
}

}  // namespace

void add_solve(CLI::App& app, Cli& cli) {
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("solve", "find the value of a parameter that gives a number of effective bits");
  verb->add_option("SETUP", options->setup, "setup whose other parameters stay, such as kivi:k_bits=2")->required();
  verb->add_option("--bits", options->bits, "effective bits that may not be exceeded")
      ->required()
      ->check(CLI::Range(0.01, 64.0));
  verb->add_option("--free", options->key, "parameter to solve for; behind a plus sign as scope.window")->required();
  verb->add_option("--model", options->model, "model folder or file; only its headers are read")->required();
  verb->add_option("--tokens", options->tokens, "in the cache; default: 2048 or the model's context")
      ->check(CLI::PositiveNumber);
  verb->add_option("--side", options->side, "kv or weights, where both have a method of this name; default: kv")
      ->check(CLI::IsMember({"kv", "weights"}));
  verb->callback([&cli, options] {
    cli.work = [&cli, options](const JobContext&) {
      const bool kv = is_kv(*options);
      const std::optional<Setup> setup = kv ? kv_setup(options->setup) : weight_setup(options->setup);
      if (!setup) throw UsageError{"solve needs a setup with a method; 'none' has no parameters."};
      const ArchitectureSpec spec = open_model(resolve_path(options->model)).spec;
      const std::int64_t tokens =
          options->tokens > 0 ? options->tokens : std::min<std::int64_t>(2048, spec.max_context);
      const BitsShape shape = bits_shape(spec, tokens);
      const BitsSolution solution = kv ? solve_kv_bits(*setup, options->key, options->bits, shape)
                                       : solve_weight_bits(*setup, options->key, options->bits, shape);
      if (!solution.reached()) cli.status = 1;
      return solution_output(solution, shape, kv);
    };
  });
}

}  // namespace qs::cli
