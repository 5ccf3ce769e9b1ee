#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json_fwd.hpp>
#include <set>
#include <string>
#include <vector>

#include "backend/model/architecture_spec.h"

namespace qs {

/// Reads config.json values and collects everything that is wrong, so that a user sees all of it at once. Remembers
/// which keys were read: settings that change what a model computes and that nobody read are refused by `finish`.
class ConfigReader {
 public:
  ConfigReader(const nlohmann::json& config, std::string path) : config_(config), path_(std::move(path)) {}

  bool has(const char* key) const;      ///< present and not null
  bool is_null(const char* key) const;  ///< present and null
  std::int64_t positive(const char* key, std::int64_t maximum);
  std::int64_t positive_or(const char* key, std::int64_t fallback, std::int64_t maximum);
  /// The first of `keys` that is there: older and newer spellings of one setting.
  std::int64_t positive(std::initializer_list<const char*> keys, std::int64_t maximum);
  double real_or(const char* key, double fallback);  ///< finite and above 0
  bool flag_or(const char* key, bool fallback);
  std::string text_or(const char* key, const std::string& fallback);
  const nlohmann::json& value(const char* key);  ///< as it is; null when it is not there
  void not_understood(const std::string& what) { not_understood_.push_back(what); }
  void not_understood_value(const std::string& key);  ///< "key = value"
  void wrong(const std::string& what) { wrong_.push_back(what); }
  std::string value_text(const std::string& key) const;
  const std::string& path() const { return path_; }
  /// @throws Error when anything was wrong (BadFormat) or not understood (Unsupported)
  void finish();

 private:
  const nlohmann::json& config_;
  std::string path_;
  std::set<std::string> read_;
  std::vector<std::string> wrong_, not_understood_;
};

// Settings that several families share, under the names that most of them use.

constexpr std::int64_t kMaxExtent = std::int64_t{1} << 22;

/// hidden_size, layers, heads, kv_heads, head_dim, vocab_size, max_context. @param default_head_dim  0: hidden_size /
/// heads
void read_sizes(ConfigReader& reader, ArchitectureSpec& spec, std::int64_t default_head_dim = 0);
/// Heads that do not fit one another, odd rotations.
void check_heads(ConfigReader& reader, const ArchitectureSpec& spec);
ActivationKind read_activation(ConfigReader& reader, const char* key, const std::string& fallback);

/// What a family rotates by when config.json does not say.
struct RopeDefaults {
  double theta = 10000.0;
  double rotary_share = 1.0;  ///< partial_rotary_factor
  const char* theta_key = "rope_theta";
  const char* share_key = "partial_rotary_factor";
  const char* layer_type = nullptr;  ///< which one, where rope_parameters has one for each type of layer
  bool yarn_is_longrope = false;     ///< Phi-3
  bool linear_extends = true;        ///< max_position_embeddings is the context before linear scaling
};
/// rope_theta with rope_scaling (older files) or rope_parameters (newer ones). Extends spec.max_context to what the
/// scaling reaches. Needs head_dim and max_context.
RopeSpec read_rope(ConfigReader& reader, ArchitectureSpec& spec, const RopeDefaults& defaults = {});

/// sliding_window and which layers have it: layer_types when given, else `slides(layer)`.
void read_sliding_layers(ConfigReader& reader, ArchitectureSpec& spec,
                         bool (*slides)(std::int64_t layer, std::int64_t period), std::int64_t period);

}  // namespace qs
