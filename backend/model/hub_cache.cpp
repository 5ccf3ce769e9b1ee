#include "backend/model/hub_cache.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "backend/formats/json_file.h"
#include "backend/formats/mapped_file.h"
#include "backend/formats/pickle.h"
#include "backend/model/family.h"
#include "backend/types/error.h"

namespace qs {
namespace {

namespace fs = std::filesystem;

constexpr const char* kEntryPrefix = "models--";
constexpr std::uintmax_t kMaxConfigBytes = 1 << 20;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

/// "models--org--name" is org/name.
std::string model_name(const fs::path& entry) {
  std::string name = entry.filename().string().substr(std::string(kEntryPrefix).size());
  for (std::size_t at = name.find("--"); at != std::string::npos; at = name.find("--", at + 1))
    name.replace(at, 2, "/");
  return name;
}

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
    std::error_code broken;
    if (at->is_regular_file(broken)) files.push_back(at->path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

std::int64_t size_of(const fs::path& file) {
  std::error_code error;
  const std::uintmax_t size = fs::file_size(file, error);
  return error ? 0 : static_cast<std::int64_t>(size);
}

/// N of "model-00001-of-0000N.safetensors"; 0 for other names.
std::int64_t shards_promised(const fs::path& file) {
  const std::string stem = file.stem().string();
  const std::size_t at = stem.rfind("-of-");
  std::int64_t count = 0;
  if (at == std::string::npos) return 0;
  const char* end = stem.data() + stem.size();
  const auto [stop, error] = std::from_chars(stem.data() + at + 4, end, count);
  return error == std::errc() && stop == end ? count : 0;
}

/// Empty when the weights are whole.
std::string missing_weights(const fs::path& folder, const std::vector<fs::path>& weights) {
  std::error_code ignored;
  if (fs::exists(folder / "model.safetensors", ignored)) return {};
  const bool has_index = fs::exists(folder / "model.safetensors.index.json", ignored);
  const std::int64_t promised = weights.empty() ? 0 : shards_promised(weights.front());
  if (has_index && promised > 0 && static_cast<std::int64_t>(weights.size()) >= promised) return {};
  if (has_index || promised > 0)
    return "The download is not complete: " + std::to_string(weights.size()) +
           (promised > 0 ? " of " + std::to_string(promised) : std::string()) + " files of weights are there" +
           (has_index ? "." : ", model.safetensors.index.json is not.");
  if (!pickles_in(folder).empty()) return pickle_advice(folder);
  return "It has no weights: neither model.safetensors nor a .gguf file.";
}

std::string config_problem(const fs::path& config) {
  std::error_code ignored;
  if (!fs::exists(config, ignored)) return "It has no config.json.";
  if (fs::file_size(config, ignored) > kMaxConfigBytes) return "Its config.json is larger than 1 MiB.";
  try {
    (void)family_of(parse_json_file(config), config.string());
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}

void add_entry(const fs::path& entry, std::vector<HubModel>& models) {
  HubModel model;
  model.name = model_name(entry);
  model.path = entry;
  try {
    model.path = resolve_hub_entry(entry);
    std::vector<fs::path> weights;
    const std::size_t before = models.size();
    for (const fs::path& file : files_of(model.path)) {
      if (file.extension() == ".safetensors") weights.push_back(file);
      if (file.extension() == ".gguf")
        models.push_back({model.name + ": " + file.filename().string(), file, size_of(file), true, {}});
    }
    for (const fs::path& file : weights) model.bytes += size_of(file);
    if (weights.empty() && models.size() > before) return;
    model.why_not = missing_weights(model.path, weights);
    if (model.why_not.empty()) model.why_not = config_problem(model.path / "config.json");
    model.can_open = model.why_not.empty();
  } catch (const std::exception& e) {
    model.why_not = e.what();
  }
  models.push_back(std::move(model));
}

}  // namespace

fs::path hub_cache_folder() {
  if (const std::string cache = environment("HF_HUB_CACHE"); !cache.empty()) return cache;
  if (const std::string home = environment("HF_HOME"); !home.empty()) return fs::path(home) / "hub";
  const std::string caches = environment("XDG_CACHE_HOME");
  return (caches.empty() ? fs::path(environment("HOME")) / ".cache" : fs::path(caches)) / "huggingface" / "hub";
}

std::vector<HubModel> hub_models(const fs::path& cache) {
  std::vector<HubModel> models;
  std::error_code error;
  for (fs::directory_iterator at(cache, error), end; !error && at != end; at.increment(error)) {
    std::error_code broken;
    if (at->path().filename().string().starts_with(kEntryPrefix) && at->is_directory(broken))
      add_entry(at->path(), models);
  }
  std::sort(models.begin(), models.end(), [](const HubModel& a, const HubModel& b) { return a.name < b.name; });
  return models;
}

fs::path resolve_hub_entry(const fs::path& folder) {
  const fs::path snapshots = folder / "snapshots";
  std::error_code error;
  if (fs::exists(folder / "config.json", error) || !fs::is_directory(snapshots, error)) {
    if (folder.filename().string().starts_with(kEntryPrefix) && !fs::exists(folder / "config.json", error))
      throw Error(ErrorCode::NotFound, "'" + folder.string() +
                                           "' is a hub cache entry without snapshots. Complete the "
                                           "download.");
    return folder;
  }
  if (fs::is_regular_file(folder / "refs" / "main", error)) {
    std::string commit = read_text_file(folder / "refs" / "main");
    while (!commit.empty() && (commit.back() == '\n' || commit.back() == '\r' || commit.back() == ' '))
      commit.pop_back();
    const fs::path snapshot = snapshots / fs::path(commit).filename();
    if (!commit.empty() && fs::is_directory(snapshot, error)) return snapshot;
  }
  std::vector<fs::path> all;
  for (fs::directory_iterator at(snapshots, error), end; !error && at != end; at.increment(error))
    if (at->is_directory(error)) all.push_back(at->path());
  if (all.size() == 1) return all.front();
  throw Error(ErrorCode::NotFound, "'" + folder.string() + "' is a hub cache entry with " + std::to_string(all.size()) +
                                       " snapshots and no refs/main. Open one of the folders under snapshots.");
}

}  // namespace qs
