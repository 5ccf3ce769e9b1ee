#pragma once

#include <array>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "backend/model/architecture_spec.h"
#include "backend/model/decoder.h"

namespace qs {

/// Names of a checkpoint's tensors; "{}" stands for the layer.
struct WeightNames {
  std::string embedding, final_norm, lm_head;
  std::string input_norm, post_attention_norm;
  std::array<std::string, kLinearKinds.size()> linears;  ///< in the order of kLinearKinds
  std::vector<std::string> ignored_endings;              ///< tensors that carry nothing the decoder needs
};

/// How the configuration and the tensor names of one architecture map onto an ArchitectureSpec.
struct Family {
  std::string architecture;  ///< as in "architectures" of config.json
  /// @throws Error Unsupported listing every setting that is not understood; BadFormat for missing or impossible values
  ArchitectureSpec (*read_config)(const nlohmann::json& config, const std::string& path);
  WeightNames names;
};

/// Every family there is. A new one is a line here and a file beside family_llama.cpp.
const std::vector<Family>& families();

/// @throws Error Unsupported naming the architecture found and the known ones; BadFormat when config.json names none
const Family& family_of(const nlohmann::json& config, const std::string& path);

Family llama_family();

/// "model.layers.{}.x" for a layer.
std::string layer_weight_name(const std::string& pattern, std::int64_t layer);

/// Reads config.json values and collects everything that is wrong, so that a user sees all of it at once.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& config, std::string path) : config_(config), path_(std::move(path)) {}

  bool has(const char* key) const;  ///< present and not null
  std::int64_t positive(const char* key, std::int64_t maximum);
  std::int64_t positive_or(const char* key, std::int64_t fallback, std::int64_t maximum);
  double real_or(const char* key, double fallback);  ///< finite and above 0
  bool flag_or(const char* key, bool fallback);
  std::string text_or(const char* key, const std::string& fallback);
  void not_understood(const std::string& what) { not_understood_.push_back(what); }
  void wrong(const std::string& what) { wrong_.push_back(what); }
  std::string value_text(const char* key) const;
  /// @throws Error when anything was wrong (BadFormat) or not understood (Unsupported)
  void finish() const;

 private:
  const nlohmann::json& config_;
  std::string path_;
  std::vector<std::string> wrong_, not_understood_;
};

}  // namespace qs
