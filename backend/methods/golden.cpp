#include "backend/methods/golden.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "backend/formats/safetensors.h"
#include "backend/methods/stored_tensor.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using nlohmann::json;

json read_manifest(const std::filesystem::path& dir) {
  const std::filesystem::path path = dir / "manifest.json";
  std::ifstream file(path);
  if (!file) {
    throw Error(ErrorCode::NotFound,
                "There is no '" + path.string() + "'; a folder of golden cases has a manifest.json.");
  }
  json manifest = json::parse(file, nullptr, false);
  if (manifest.is_discarded() || !manifest.is_object() || !manifest.contains("cases") ||
      !manifest["cases"].is_array()) {
    throw Error(ErrorCode::BadFormat,
                "'" + path.string() + "' is no manifest: a JSON object with a list 'cases' was expected.");
  }
  for (const json& entry : manifest["cases"]) {
    if (entry.is_object() && entry.value("method", json()).is_string() && entry.value("case", json()).is_string())
      continue;
    throw Error(ErrorCode::BadFormat, "'" + path.string() +
                                          "': every case must be an object with the words 'method' and 'case', found " +
                                          entry.dump().substr(0, 80) + ".");
  }
  return manifest;
}

/// The KV side and the weight side both have a method rtn; a manifest is of one side.
bool is_kv_manifest(const json& manifest) {
  for (const json& entry : manifest["cases"]) {
    if (entry["method"] != "rtn") continue;
    const json tensors = entry.value("tensors", json::array());
    return std::any_of(tensors.begin(), tensors.end(),
                       [](const json& tensor) { return tensor.is_object() && tensor.value("name", json()) == "key"; });
  }
  const json& cases = manifest["cases"];
  return std::any_of(cases.begin(), cases.end(),
                     [](const json& entry) { return entry["method"] == "kivi" || entry["method"] == "fp8"; });
}

const GoldenRunner* find_runner(const std::vector<GoldenRunner>& runners, const std::string& method) {
  const auto found =
      std::find_if(runners.begin(), runners.end(), [&](const GoldenRunner& r) { return r.method == method; });
  return found == runners.end() ? nullptr : &*found;
}

void load_tensors(GoldenCase& golden) {
  if (!golden.entry.contains("tensors") || golden.entry["tensors"].empty()) return;  // kind json
  const TensorTable table = read_safetensors(golden.folder / golden.entry.at("file").get<std::string>());
  for (const json& described : golden.entry["tensors"]) {
    const std::string name = described.at("name").get<std::string>();
    auto& place = described.value("role", "input") == "expected" ? golden.expected : golden.inputs;
    place[name] = tensor_of(table.at(name));
  }
}

class Verifier {
 public:
  explicit Verifier(VerifyReport& report) : report_(report) {}

  void run(const GoldenRunner& runner, GoldenCase& golden, const JobContext& job) {
    name_ = golden.method + "/" + golden.name;
    failures_ = 0;
    try {
      load_tensors(golden);
      const GoldenOutput output = runner.run(golden, job);
      if (!output.skipped.empty()) {
        report_.skipped.push_back({name_, output.skipped});
        return;
      }
      if (!compare(golden, output)) fail("", "the case has something to compare", 0.0);
    } catch (const Cancelled&) {
      throw;
    } catch (const c10::Error& error) {
      fail("", std::string("could not run: ") + error.what_without_backtrace(), 0.0);
    } catch (const std::exception& error) {
      fail("", std::string("could not run: ") + error.what(), 0.0);
    }
    if (failures_ == 0) ++report_.passed;
  }

 private:
  void fail(const std::string& tensor, const std::string& rule, double worst) {
    report_.failed.push_back({name_, tensor, rule, worst});
    ++failures_;
  }

  /// @return whether there was anything to compare
  bool compare(const GoldenCase& golden, const GoldenOutput& output) {
    bool any = !output.checks.empty() || golden.entry.value("kind", "") == "formula";
    for (const json& described : golden.entry.value("tensors", json::array())) {
      if (described.value("role", "") != "expected") continue;
      any = true;
      const std::string name = described.at("name").get<std::string>();
      const auto actual = output.tensors.find(name);
      if (actual == output.tensors.end() || !actual->second.defined()) {
        fail(name, "the method gave no such tensor", 0.0);
        continue;
      }
      const GoldenComparison result = compare_golden(actual->second, golden.expected.at(name), described.at("compare"));
      if (!result.passed) fail(name, result.rule, result.worst);
    }
    if (golden.entry.value("kind", "") == "formula") compare_numbers(golden.entry, output);
    for (const GoldenOutput::Check& check : output.checks) {
      if (!check.passed) fail(check.name, check.rule, check.worst);
    }
    return any;
  }

  void compare_numbers(const json& entry, const GoldenOutput& output) {
    const double tolerance = entry.value("tolerance", 1e-9);
    for (const auto& [key, expected] : entry.at("expected").items()) {
      const auto actual = output.numbers.find(key);
      if (actual == output.numbers.end()) {
        fail(key, "the method gave no such number", 0.0);
        continue;
      }
      const double error = std::fabs(actual->second - expected.get<double>());
      if (!(error <= tolerance * std::max(1.0, std::fabs(expected.get<double>())))) {
        fail(key, "abs " + json(tolerance).dump(), error);
      }
    }
  }

  VerifyReport& report_;
  std::string name_;
  int failures_ = 0;
};

}  // namespace

at::Tensor golden_input(const GoldenCase& golden, const std::string& name) {
  const auto found = golden.inputs.find(name);
  if (found == golden.inputs.end())
    throw Error(ErrorCode::BadFormat, "Golden case '" + golden.name + "' has no input '" + name + "'.");
  return found->second;
}

VerifyReport verify_golden(const std::filesystem::path& dir, const JobContext& job,
                           const std::vector<GoldenRunner>& extra) {
  const json manifest = read_manifest(dir);
  std::vector<GoldenRunner> runners = extra;
  for (GoldenRunner& runner : is_kv_manifest(manifest) ? golden_kv_runners() : golden_weight_runners()) {
    runners.push_back(std::move(runner));
  }
  VerifyReport report;
  Verifier verifier(report);
  const json& cases = manifest["cases"];
  const auto total = static_cast<std::int64_t>(cases.size());
  for (const json& entry : cases) {
    job.checkpoint(report.cases++, total, "Golden cases");
    const std::string method = entry["method"], name = entry["case"];
    const GoldenRunner* const runner = find_runner(runners, method);
    if (runner == nullptr) {
      report.skipped.push_back({method + "/" + name, "method '" + method + "' is not in this version"});
      continue;
    }
    GoldenCase golden{.method = method, .name = name, .folder = dir, .entry = entry, .inputs = {}, .expected = {}};
    verifier.run(*runner, golden, job);
  }
  job.checkpoint(total, total, "Golden cases");
  return report;
}

}  // namespace qs
