#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

namespace qs {

/// What tokenizer_config.json and special_tokens_map.json beside a tokenizer say; empty where they say nothing.
struct TokenizerConfig {
  std::optional<bool> adds_bos;
  std::string bos_token, eos_token;
};

/// @throws Error BadFormat
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

/// Parses JSON that somebody else wrote: nesting is limited. @throws Error NotFound, BadFormat
nlohmann::json read_json(const std::filesystem::path& path);

}  // namespace qs
