#pragma once

#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "backend/tokenizer/tokenizer.h"
#include "backend/tokenizer/tokenizer_files.h"

namespace qs {

/// Reads a tokenizer.json, and BOS and EOS from the tokenizer_config.json or special_tokens_map.json beside it.
/// @throws Error NotFound, BadFormat, or Unsupported naming the component that cannot be read
std::shared_ptr<const Tokenizer> load_hf_tokenizer(const std::filesystem::path& tokenizer_json);

/// @param json    what a tokenizer.json holds
/// @param where   file, for messages
/// @param format  beginning of kind(): "tokenizer.json", "GGUF"
/// @throws Error as load_hf_tokenizer
std::shared_ptr<const Tokenizer> make_hf_tokenizer(const nlohmann::json& json, const TokenizerConfig& config,
                                                   const std::string& where,
                                                   const std::string& format = "tokenizer.json");

}  // namespace qs
