#pragma once

#include <filesystem>
#include <memory>

#include "backend/tokenizer/tokenizer.h"

namespace qs {

/// Reads llama2.c's tokenizer.bin: int32 longest token in bytes, then for each token f32 score, int32 length, bytes.
/// Ids 0, 1, 2 are unknown, BOS, EOS; 3..258 are the bytes.
/// @throws Error NotFound, BadFormat
std::shared_ptr<const Tokenizer> load_llama2c_tokenizer(const std::filesystem::path& tokenizer_bin);
/// @param where  file, for messages
std::shared_ptr<const Tokenizer> make_llama2c_tokenizer(std::string_view bytes, const std::string& where);

}  // namespace qs
