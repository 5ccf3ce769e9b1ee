#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/tokenizer/tokenizer.h"
#include "backend/tokenizer/tokenizer_files.h"

namespace qs {

/// Reads byte-level BPE from a folder with vocab.json and merges.txt, as GPT-2 has them. The words are cut as GPT-2
/// cuts them, or as Qwen2 does when tokenizer_config.json says so.
/// @throws Error NotFound, BadFormat, Unsupported
std::shared_ptr<const Tokenizer> load_gpt2_tokenizer(const std::filesystem::path& folder);

/// @param vocab   text of vocab.json: an object of token to id
/// @param merges  text of merges.txt: "left right" lines, a "#version" line first
/// @param where   folder, for messages
std::shared_ptr<const Tokenizer> make_gpt2_tokenizer(std::string_view vocab, std::string_view merges,
                                                     const TokenizerConfig& config, const std::string& where);

/// Byte-level BPE that cuts words with these expressions one after another.
nlohmann::json byte_level_pre_tokenizer(const std::vector<std::string>& expressions);

// Expressions that several vocabularies share.
extern const char* const kGpt2Words;
extern const char* const kLlama3Words;  ///< digits by three
extern const char* const kQwen2Words;   ///< digits one by one

}  // namespace qs
