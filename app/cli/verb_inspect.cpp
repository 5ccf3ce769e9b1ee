#include <fstream>

#include "app/cli/cli.h"
#include "backend/model/module_tree.h"
#include "backend/storage/capture_reader.h"
#include "backend/storage/results_file.h"

namespace qs::cli {
namespace {

std::string first_bytes(const std::filesystem::path& path, std::size_t count) {
  std::ifstream in(path, std::ios::binary);
  std::string bytes(count, '\0');
  in.read(bytes.data(), static_cast<std::streamsize>(count));
  bytes.resize(static_cast<std::size_t>(in.gcount()));
  return bytes;
}

std::string extents_text(const std::vector<std::int64_t>& shape) {
  std::string text;
  for (const std::int64_t extent : shape) text += (text.empty() ? "" : " x ") + std::to_string(extent);
  return text;
}

void add_modules(const ModuleInfo& module, Table& table, Json& json) {
  if (!module.is_tensor()) {
    for (const ModuleInfo& child : module.children) add_modules(child, table, json);
    return;
  }
  json.push_back({{"name", module.path}, {"dtype", module.dtype}, {"shape", module.shape}, {"bytes", module.bytes}});
  table.row({module.path, module.dtype, extents_text(module.shape), bytes_text(module.bytes)});
}

Output inspect_model_path(const std::filesystem::path& path, std::int64_t context, bool modules) {
  const ModelDescription description = describe_model(path);
  const ModelInfo& info = description.info;
  const std::int64_t tokens = context > 0 ? context : info.max_context;
  const MemoryEstimate memory = estimate_memory(info, {}, tokens);
  Output output;
  output.json = {
      {"kind", "model"},
      {"name", info.name},
      {"path", info.path},
      {"format", info.format},
      {"architecture", info.architecture},
      {"tokenizer", info.tokenizer},
      {"parameters", info.parameters},
      {"layers", info.layers},
      {"heads", info.heads},
      {"kv_heads", info.kv_heads},
      {"head_dim", info.head_dim},
      {"hidden_size", info.hidden_size},
      {"intermediate_size", info.intermediate_size},
      {"vocab_size", info.vocab_size},
      {"max_context", info.max_context},
      {"tied_embeddings", info.tied_embeddings},
      {"dtype", info.dtype},
      {"quantization", description.quantization.empty() ? Json() : Json(description.quantization)},
      {"bytes", info.bytes},
      {"kv_bytes_per_token", info.kv_bytes_per_token()},
      {"fingerprint", info.fingerprint},
      {"memory_estimate",
       {{"weights", memory.weights}, {"kv", memory.kv}, {"scratch", memory.scratch}, {"context", memory.context}}},
      {"memory_available", available_memory()}};
  Table table({"model", info.name});
  table.row({"architecture", info.architecture + ", " + info.format});
  table.row({"tokenizer", info.tokenizer});
  table.row({"parameters", std::to_string(info.parameters)});
  table.row({"layers, heads / KV heads",
             std::to_string(info.layers) + ", " + std::to_string(info.heads) + " / " + std::to_string(info.kv_heads)});
  table.row({"head_dim, hidden, intermediate", std::to_string(info.head_dim) + ", " + std::to_string(info.hidden_size) +
                                                   ", " + std::to_string(info.intermediate_size)});
  table.row({"vocabulary, context", std::to_string(info.vocab_size) + ", " + std::to_string(info.max_context)});
  const std::string codes = description.quantization.empty() ? "" : description.quantization + "; the rest ";
  table.row({"stored", codes + info.dtype + ", " + bytes_text(info.bytes)});
  table.row({"KV cache in f16", bytes_text(info.kv_bytes_per_token()) + " a token"});
  table.row({"memory at " + std::to_string(tokens) + " tokens",
             bytes_text(memory.total()) + ": weights " + bytes_text(memory.weights) + ", cache " +
                 bytes_text(memory.kv) + ", scratch " + bytes_text(memory.scratch) + "; available " +
                 bytes_text(available_memory())});
  output.text = table.text();
  if (memory.weights > available_memory())
    output.text +=
        "The weights are larger than the free memory: they will be read from the file for every pass, slowly.\n";
  if (modules) {
    Table tensors({"tensor", "type", "shape", "stored"});
    output.json["modules"] = Json::array();
    add_modules(description.modules, tensors, output.json["modules"]);
    output.text += "\n" + tensors.text();
  }
  return output;
}

Output inspect_capture(const std::filesystem::path& path) {
  const auto reader = CaptureReader::open(path);
  const CaptureInfo& info = reader->info();
  Output output;
  output.json = {{"kind", "capture"},
                 {"model_name", info.model_name},
                 {"architecture", info.architecture},
                 {"layers", info.layers},
                 {"heads", info.heads},
                 {"kv_heads", info.kv_heads},
                 {"head_dim", info.head_dim},
                 {"hidden_size", info.hidden_size},
                 {"tokens", info.tokens},
                 {"complete", info.complete},
                 {"text_source", info.text_source},
                 {"created_utc", info.created_utc},
                 {"program_version", info.program_version},
                 {"bytes", static_cast<std::int64_t>(std::filesystem::file_size(path))},
                 {"datasets", Json::array()}};
  output.text = "capture of " + info.model_name + ", " + std::to_string(info.tokens) + " tokens of " +
                info.text_source + (info.complete ? "" : " (not complete: it was stopped)") + "\n";
  Table table({"dataset", "type", "shape", "axes", "stored"});
  for (const DatasetInfo& dataset : info.datasets) {
    output.json["datasets"].push_back({{"path", dataset.path},
                                       {"dtype", dataset.dtype},
                                       {"shape", dataset.shape},
                                       {"axes", dataset.axes},
                                       {"bytes_stored", dataset.bytes_stored}});
    table.row(
        {dataset.path, dataset.dtype, extents_text(dataset.shape), dataset.axes, bytes_text(dataset.bytes_stored)});
  }
  output.text += table.text();
  return output;
}

Output inspect_results(const std::filesystem::path& path) {
  const std::vector<EvalReport> reports = read_results(path);
  Output output{{{"kind", "results"}, {"runs", Json::array()}}, {}};
  Table table({"variant", "task", "value", "standard error", "n", "protocol"});
  for (const EvalReport& report : reports) {
    for (const TaskResult& task : report.tasks) {
      output.json["runs"].push_back({{"variant", report.variant.text()},
                                     {"task", task.task},
                                     {"value", number(task.value)},
                                     {"standard_error", number(task.standard_error)},
                                     {"n", task.n},
                                     {"fingerprint", report.fingerprint}});
      table.row({report.variant.text(), task.task, significant(task.value, 6), significant(task.standard_error, 3),
                 std::to_string(task.n), report.fingerprint});
    }
  }
  output.text = table.text();
  return output;
}

Output inspect_session(const std::filesystem::path& path) {
  std::ifstream in(path);
  Json session;
  try {
    session = Json::parse(in);
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::BadFormat, "'" + path.string() + "' is not a session: it is no whole JSON document.",
                e.what());
  }
  if (!session.is_object() || session.value("format", "") != "quantoscope-session") {
    throw Error(ErrorCode::BadFormat,
                "'" + path.string() + "' is JSON but no session: 'format' should be \"quantoscope-session\".");
  }
  const auto count = [&](const char* list) {
    return session.contains(list) && session[list].is_array() ? session[list].size() : 0;
  };
  Output output{{{"kind", "session"},
                 {"title", session.value("title", "")},
                 {"models", count("models")},
                 {"captures", count("captures")},
                 {"variants", count("variants")},
                 {"views", count("views")}},
                {}};
  output.text = "session '" + session.value("title", std::string()) + "': " + std::to_string(count("models")) +
                " models, " + std::to_string(count("captures")) + " captures, " + std::to_string(count("variants")) +
                " variants\n";
  return output;
}

}  // namespace

void add_inspect(CLI::App& app, Cli& cli) {
  struct Options {
    std::string path;
    std::int64_t context = 0;
    bool modules = false;
  };
  auto options = std::make_shared<Options>();
  CLI::App* verb = app.add_subcommand("inspect", "describe a model, capture, results or session file");
  verb->add_option("PATH", options->path, "what to describe")->required();
  verb->add_option("--context", options->context, "tokens that the memory estimate is for")->check(CLI::PositiveNumber);
  verb->add_flag("--modules", options->modules, "list every tensor of a model");
  verb->callback([&cli, options] {
    cli.work = [options](const JobContext&) {
      const std::filesystem::path path = resolve_path(options->path);
      if (!std::filesystem::exists(path)) throw Error(ErrorCode::NotFound, "There is no '" + options->path + "'.");
      if (std::filesystem::is_directory(path) || path.filename() == "config.json")
        return inspect_model_path(path, options->context, options->modules);
      const std::string head = first_bytes(path, 8);
      if (head == "\x89HDF\r\n\x1a\n") {
        try {
          return inspect_results(path);
        } catch (const Error&) {
          return inspect_capture(path);  // whose message says what a capture needs
        }
      }
      if (head.starts_with('{')) return inspect_session(path);
      return inspect_model_path(path, options->context, options->modules);
    };
  });
}

}  // namespace qs::cli
