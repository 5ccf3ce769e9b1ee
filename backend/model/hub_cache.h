#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace qs {

/// A model in the cache that the Hugging Face hub's programs download to.
struct HubModel {
  std::string name;            ///< "org/model"; of a GGUF file "org/model: file.gguf"
  std::filesystem::path path;  ///< of the snapshot's folder, or of the GGUF file in it: what open_model takes
  std::int64_t bytes = 0;      ///< of the weights
  bool can_open = false;       ///< its files are there; their contents have not been looked at
  std::string why_not;         ///< a sentence, when it cannot
};

/// HF_HUB_CACHE, else hub under HF_HOME, else huggingface/hub under XDG_CACHE_HOME or ~/.cache.
std::filesystem::path hub_cache_folder();

/// Every model in `cache`, by name. Reads folders, file sizes and config.json, no weights. One broken entry is listed
/// with its reason and never hides the others; a cache that is not there is empty.
std::vector<HubModel> hub_models(const std::filesystem::path& cache = hub_cache_folder());

/// The snapshot folder of a cache entry ("models--org--name"): the one that refs/main names, else the only one. Any
/// other folder is returned as it is. @throws Error NotFound when an entry has several snapshots or none
std::filesystem::path resolve_hub_entry(const std::filesystem::path& folder);

}  // namespace qs
