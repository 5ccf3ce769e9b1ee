#pragma once

#include <filesystem>
#include <memory>

#include "backend/tokenizer/tokenizer.h"

namespace qs {

/// Reads a SentencePiece tokenizer.model with BPE pieces, and whether texts begin with BOS from tokenizer_config.json
/// beside it.
/// @throws Error NotFound, BadFormat
std::shared_ptr<const Tokenizer> load_sentencepiece_tokenizer(const std::filesystem::path& tokenizer_model);

}  // namespace qs
