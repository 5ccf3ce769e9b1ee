#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>

#include "backend/model/model.h"
#include "backend/model/model_source.h"

namespace qs {
namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kUnlimited = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMaxScoreBytes = std::int64_t{4} << 24;
/// Weights that are decoded into the compute type at once.
constexpr std::int64_t kDecodedBytes = std::int64_t{8} << 20;

std::optional<std::int64_t> number_in(const fs::path& path) {
  std::ifstream file(path);
  std::int64_t value = 0;
  if (file >> value) return value;
  return std::nullopt;
}

/// The value after `key` in a file of "key value" or "key: value kB" lines.
std::optional<std::int64_t> field_in(const fs::path& path, const std::string& key) {
  std::ifstream file(path);
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name;
    std::int64_t value = 0;
    if (words >> name >> value && name == key) return value;
  }
  return std::nullopt;
}

std::int64_t free_of_group(const fs::path& folder, const char* limit_file, const char* usage_file,
                           const char* inactive_key) {
  const auto limit = number_in(folder / limit_file);
  const auto usage = number_in(folder / usage_file);
  if (!limit || !usage) return kUnlimited;
  const std::int64_t reclaimable = field_in(folder / "memory.stat", inactive_key).value_or(0);
  return std::max<std::int64_t>(0, *limit - std::max<std::int64_t>(0, *usage - reclaimable));
}

/// The tightest limit of the control groups this process is in, version 2 and version 1.
std::int64_t free_of_control_groups() {
  std::int64_t least = std::min(
      free_of_group("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
      free_of_group("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"));
  std::ifstream groups("/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool version_2 = controllers.empty();
    if (!version_2 && controllers.find("memory") == std::string::npos) continue;
    fs::path group = fs::path(line.substr(second + 1)).relative_path();
    const fs::path root = version_2 ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory";
    for (; !group.empty() && group != group.root_path(); group = group.parent_path())
      least = std::min(least, version_2 ? free_of_group(root / group, "memory.max", "memory.current", "inactive_file")
                                        : free_of_group(root / group, "memory.limit_in_bytes", "memory.usage_in_bytes",
                                                        "total_inactive_file"));
  }
  return least;
}

std::int64_t free_address_space() {
  rlimit limit = {};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  const std::int64_t pages = number_in("/proc/self/statm").value_or(0);
  return std::max<std::int64_t>(0, static_cast<std::int64_t>(limit.rlim_cur) - pages * sysconf(_SC_PAGESIZE));
}

}  // namespace

std::int64_t available_memory() {
  const auto kibibytes = field_in("/proc/meminfo", "MemAvailable:");
  const std::int64_t machine = kibibytes ? *kibibytes * 1024 : kUnlimited;
  return std::min({machine, free_of_control_groups(), free_address_space()});
}

std::string memory_advice(const Model& model) {
  const std::int64_t weights = model.info().bytes, available = available_memory();
  if (weights <= available) return {};
  return "'" + model.info().name + "' has " + std::to_string(weights >> 20) + " MiB of weights, and only " +
         std::to_string(available >> 20) +
         " MiB of memory are free: they are read from the file again for every pass, block by block, which is slow.";
}

MemoryEstimate estimate_memory(const ModelInfo& info, const LoadOptions& options, std::int64_t context) {
  const std::int64_t element = compute_type_bytes(options.dtype);
  MemoryEstimate estimate;
  estimate.context = context;
  estimate.weights = info.bytes;
  estimate.kv = 2 * info.layers * info.kv_heads * info.head_dim * context * element;
  const std::int64_t width =
      4 * info.hidden_size + 3 * info.intermediate_size + 2 * (info.heads + 2 * info.kv_heads) * info.head_dim;
  const std::int64_t scores = std::min(3 * kMaxScoreBytes, 3 * info.heads * context * context * 4);
  estimate.scratch = context * width * element + context * info.vocab_size * 4 + scores + kDecodedBytes;
  return estimate;
}

}  // namespace qs
