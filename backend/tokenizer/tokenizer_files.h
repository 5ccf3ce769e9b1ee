#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace qs {

/// What tokenizer_config.json, special_tokens_map.json and chat_template.jinja beside a tokenizer say; empty where they
/// say nothing.
struct TokenizerConfig {
  std::optional<bool> adds_bos, adds_eos;
  std::string bos_token, eos_token, unk_token;
  std::string tokenizer_class;
  std::string chat_template;  ///< of several the one named "default"
};

/// @throws Error BadFormat
TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder);

/// Parses JSON that somebody else wrote: nesting is limited. @throws Error NotFound, BadFormat
nlohmann::json read_json(const std::filesystem::path& path);
/// @param where  file, for messages
nlohmann::json parse_json(std::string_view text, const std::string& where);

}  // namespace qs
