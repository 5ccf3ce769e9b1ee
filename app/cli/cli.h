#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "backend/model/model.h"
#include "backend/types/error.h"
#include "backend/types/job.h"
#include "backend/types/setup.h"

namespace qs::cli {

using Json = nlohmann::ordered_json;

/// The command line was wrong: exit status 2. Everything else that fails ends with 1.
struct UsageError {
  std::string message;
};

/// What a verb prints: one JSON document with --json, else the text.
struct Output {
  Json json;
  std::string text;
};

/// Filled by the verbs while the command line is parsed; `work` is the chosen one.
struct Cli {
  bool json = false;
  bool verbose = false;
  std::function<Output(const JobContext&)> work;
  /// Exit status when the work itself ran but found what it looked for to be wrong (verify).
  int status = 0;
};

// One function a verb: declares its options and stores its work.
void add_methods(CLI::App& app, Cli& cli);
void add_models(CLI::App& app, Cli& cli);
void add_inspect(CLI::App& app, Cli& cli);
void add_capture(CLI::App& app, Cli& cli);
void add_stats(CLI::App& app, Cli& cli);
void add_calibrate(CLI::App& app, Cli& cli);
void add_apply(CLI::App& app, Cli& cli);
void add_eval(CLI::App& app, Cli& cli);
void add_alpha_sweep(CLI::App& app, Cli& cli);
void add_layers(CLI::App& app, Cli& cli);
void add_auto(CLI::App& app, Cli& cli);
void add_solve(CLI::App& app, Cli& cli);
void add_generate(CLI::App& app, Cli& cli);
void add_quantize(CLI::App& app, Cli& cli);
void add_verify(CLI::App& app, Cli& cli);
void add_tokenize(CLI::App& app, Cli& cli);
void add_bench(CLI::App& app, Cli& cli);

/// Options of every verb that loads a model.
struct ModelOptions {
  std::string path, device = "cpu", dtype = "float32";
  int threads = 0;
};
void add_model_options(CLI::App& verb, ModelOptions& options);
std::shared_ptr<const Model> load(const ModelOptions& options, const JobContext& job);

/// `sample:...` names a file of the bundled sample; anything else stays as it is.
std::filesystem::path resolve_path(const std::string& path);

/// Setups of the command line. @throws UsageError
std::optional<Setup> kv_setup(const std::string& text);
std::optional<Setup> weight_setup(const std::string& text);

/// "1k,4k,16384" and "key,value". @throws UsageError
std::vector<std::int64_t> parse_counts(const std::string& text);
std::vector<std::string> split(const std::string& text, char separator = ',');
/// "0.35:0.90:0.05" or "0.3,0.5". @throws UsageError
std::vector<double> parse_grid(const std::string& text);

/// Text tables: columns padded to their widest cell, numbers to the right.
class Table {
 public:
  explicit Table(std::vector<std::string> header);
  void row(std::vector<std::string> cells);
  std::string text() const;

 private:
  std::vector<std::vector<std::string>> rows_;
};

std::string fixed(double value, int digits);        ///< "3.142"; "-" for NaN
std::string significant(double value, int digits);  ///< "0.00123", "1.2e-07"; "-" for NaN
std::string bytes_text(std::int64_t bytes);         ///< "12.4 MiB"
Json number(double value);                          ///< null for NaN and infinities

}  // namespace qs::cli
