#pragma once

#include <filesystem>
#include <memory>

#include "backend/tokenizer/tokenizer.h"

namespace qs {

/// Reads a tokenizer.json, and BOS and EOS from the tokenizer_config.json or special_tokens_map.json beside it.
/// @throws Error NotFound, BadFormat, or Unsupported naming the component that cannot be read
std::shared_ptr<const Tokenizer> load_hf_tokenizer(const std::filesystem::path& tokenizer_json);

}  // namespace qs
