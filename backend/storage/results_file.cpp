#include "backend/storage/results_file.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "backend/storage/capture_layout.h"
#include "backend/storage/hdf5_commit_file.h"
#include "backend/storage/hdf5_thread.h"
#include "backend/types/error.h"

namespace qs {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFormat = "quantoscope-results";
constexpr std::int64_t kVersion = 1;

json to_json(const EvalReport& r) {
  json tasks = json::array();
  for (const TaskResult& t : r.tasks) {
    tasks.push_back({{"task", t.task},
                     {"metric", t.metric},
                     {"value", t.value},
                     {"standard_error", t.standard_error},
                     {"n", t.n},
                     {"seconds", t.seconds}});
  }
  const Protocol& p = r.protocol;
  return {{"variant", {{"model", r.variant.model}, {"weights", r.variant.weights}, {"kv", r.variant.kv}}},
          {"protocol",
           {{"text_name", p.text_name},
            {"text_sha256", p.text_sha256},
            {"tokenizer", p.tokenizer},
            {"window", p.window},
            {"stride", p.stride},
            {"windows", p.windows},
            {"bos", p.bos},
            {"kv_mode", kv_mode_id(p.kv_mode)},
            {"dtype", p.dtype},
            {"device", p.device},
            {"joining_rule", p.joining_rule},
            {"prompt_template", p.prompt_template},
            {"shots", p.shots}}},
          {"tasks", tasks},
          {"memory",
           {{"weights_bytes", r.memory.weights_bytes},
            {"kv_bytes", r.memory.kv_bytes},
            {"kv_bytes_full_precision", r.memory.kv_bytes_full_precision},
            {"peak_rss", r.memory.peak_rss}}},
          {"effective_bits", {{"weights", r.weight_bits}, {"kv", r.kv_bits}}},
          {"seed", r.seed},
          {"fingerprint", r.fingerprint},
          {"program_version", r.program_version},
          {"created_utc", r.created_utc},
          {"model_fingerprint", r.model_fingerprint}};
}

/// JSON has no NaN or infinity; they are stored as null and read as NaN.
double number(const json& value) { return value.is_number() ? value.get<double>() : std::nan(""); }

EvalReport from_json(const json& j) {
  EvalReport r;
  r.variant = {j.at("variant").at("model"), j.at("variant").at("weights"), j.at("variant").at("kv")};
  const json& p = j.at("protocol");
  Protocol& protocol = r.protocol;
  protocol.text_name = p.at("text_name");
  protocol.text_sha256 = p.at("text_sha256");
  protocol.tokenizer = p.at("tokenizer");
  protocol.window = p.at("window");
  protocol.stride = p.at("stride");
  protocol.windows = p.at("windows");
  protocol.bos = p.at("bos");
  protocol.kv_mode =
      p.at("kv_mode") == kv_mode_id(KvMode::PrefillQuantized) ? KvMode::PrefillQuantized : KvMode::Streaming;
  protocol.dtype = p.at("dtype");
  protocol.device = p.at("device");
  protocol.joining_rule = p.at("joining_rule");
  protocol.prompt_template = p.at("prompt_template");
  protocol.shots = p.at("shots");
  for (const json& t : j.at("tasks")) {
    TaskResult task;
    task.task = t.at("task");
    task.metric = t.at("metric");
    task.value = number(t.at("value"));
    task.standard_error = number(t.at("standard_error"));
    task.n = t.at("n");
    task.seconds = number(t.at("seconds"));
    r.tasks.push_back(std::move(task));
  }
  const json& m = j.at("memory");
  r.memory = {m.at("weights_bytes"), m.at("kv_bytes"), m.at("kv_bytes_full_precision"), m.at("peak_rss")};
  r.weight_bits = number(j.at("effective_bits").at("weights"));
  r.kv_bits = number(j.at("effective_bits").at("kv"));
  r.seed = j.at("seed");
  r.fingerprint = j.at("fingerprint");
  r.program_version = j.at("program_version");
  r.created_utc = j.at("created_utc");
  r.model_fingerprint = j.at("model_fingerprint");
  return r;
}

std::string run_group(std::size_t run) {
  char name[32];
  std::snprintf(name, sizeof name, "/runs/%03zu", run);
  return name;
}

std::string items_dataset(std::size_t run, std::size_t index, const TaskResult& task) {
  return run_group(run) + "/per_item/" + std::to_string(index) + "_" + task.metric;
}

void write_runs(hid_t file, const std::vector<EvalReport>& reports) {
  hdf5::set_attribute(file, "format", std::string(kFormat));
  hdf5::set_attribute(file, "version", kVersion);
  hdf5::set_attribute(file, "created_utc", utc_now());
  hdf5::set_attribute(file, "program_version", std::string(QUANTOSCOPE_VERSION));
  hdf5::set_attribute(file, "runs", static_cast<std::int64_t>(reports.size()));
  const hdf5::Properties links(H5Pcreate(H5P_LINK_CREATE));
  hdf5::check(H5Pset_create_intermediate_group(links, 1), "prepare groups");
  for (std::size_t run = 0; run < reports.size(); ++run) {
    const EvalReport& report = reports[run];
    const hdf5::Group group(H5Gcreate2(file, run_group(run).c_str(), links, H5P_DEFAULT, H5P_DEFAULT),
                            "create '" + run_group(run) + "'");
    hdf5::set_attribute(group, "report", to_json(report).dump());
    hdf5::set_attribute(group, "variant", report.variant.text());
    hdf5::set_attribute(group, "fingerprint", report.fingerprint);
    for (std::size_t i = 0; i < report.tasks.size(); ++i) {
      const TaskResult& task = report.tasks[i];
      const hdf5::Shape shape = {static_cast<std::int64_t>(task.per_item.size())};
      const hdf5::Dataset items = hdf5::create_dataset(file, items_dataset(run, i, task), hdf5::ElementType::Float64,
                                                       shape, {}, -1, "items", task.task);
      if (shape[0] > 0) hdf5::write_block(items, hdf5::ElementType::Float64, {0}, shape, task.per_item.data());
      hdf5::set_attribute(items, "task", task.task);
      hdf5::set_attribute(items, "metric", task.metric);
      hdf5::set_attribute(items, "value", task.value);
      hdf5::set_attribute(items, "standard_error", task.standard_error);
    }
  }
}

EvalReport read_run(hid_t file, std::size_t run, const std::string& where) {
  const std::string name = run_group(run);
  const hdf5::Group group(H5Gopen2(file, name.c_str(), H5P_DEFAULT), "open '" + name + "'");
  EvalReport report;
  try {
    report = from_json(json::parse(hdf5::string_attribute(group, "report")));
  } catch (const json::exception& e) {
    throw Error(ErrorCode::BadFormat,
                where + " has a run '" + name + "' whose attribute \"report\" cannot be read. Evaluate again.",
                e.what());
  }
  for (std::size_t i = 0; i < report.tasks.size(); ++i) {
    TaskResult& task = report.tasks[i];
    const hdf5::Dataset items = hdf5::open_dataset(file, items_dataset(run, i, task));
    const hdf5::Shape shape = hdf5::shape_of(items);
    if (shape.size() != 1 || shape[0] > (std::int64_t{1} << 32))
      throw Error(ErrorCode::BadFormat, where + " has per-item values of an unexpected shape in '" + name + "'.");
    task.per_item.resize(static_cast<std::size_t>(shape[0]));
    if (shape[0] > 0) hdf5::read_block(items, hdf5::ElementType::Float64, {0}, shape, task.per_item.data());
  }
  return report;
}

}  // namespace

void write_results(const fs::path& path, const std::vector<EvalReport>& reports) {
  hdf5::write_whole_file(path, [&](hid_t file) { write_runs(file, reports); });
}

std::vector<EvalReport> read_results(const fs::path& path) {
  const std::string where = "'" + path.string() + "'";
  std::error_code failure;
  if (!fs::exists(path, failure)) throw Error(ErrorCode::NotFound, where + " does not exist.");
  return Hdf5Thread::instance().run([&] {
    try {
      const hdf5::File file(H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT), "open " + where);
      const std::string format = hdf5::string_attribute(file, "format");
      if (format != kFormat)
        throw Error(ErrorCode::BadFormat, where + " is no results file: its attribute \"format\" is \"" + format +
                                              "\", expected \"" + kFormat + "\".");
      const std::int64_t version = hdf5::int_attribute(file, "version"), runs = hdf5::int_attribute(file, "runs", -1);
      if (version != kVersion)
        throw Error(ErrorCode::BadFormat, where + " is a results file of version " + std::to_string(version) +
                                              "; this program reads version 1.");
      if (runs < 0 || runs > 1000000)
        throw Error(ErrorCode::BadFormat, where + " does not say how many runs it holds.");
      std::vector<EvalReport> reports;
      for (std::int64_t run = 0; run < runs; ++run)
        reports.push_back(read_run(file, static_cast<std::size_t>(run), where));
      return reports;
    } catch (const Error& e) {
      if (e.code() != ErrorCode::Io) throw;
      throw Error(ErrorCode::BadFormat,
                  where + " is damaged, truncated or no HDF5 file; expected a results file. " + e.what(), e.detail());
    }
  });
}

}  // namespace qs
