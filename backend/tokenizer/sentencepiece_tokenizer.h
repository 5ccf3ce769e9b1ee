#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "backend/tokenizer/sentencepiece_model.h"
#include "backend/tokenizer/tokenizer.h"

namespace qs {

/// Reads a SentencePiece tokenizer.model (BPE or unigram), and whether texts begin with BOS from tokenizer_config.json
/// beside it.
/// @throws Error NotFound, BadFormat, Unsupported
std::shared_ptr<const Tokenizer> load_sentencepiece_tokenizer(const std::filesystem::path& tokenizer_model);

/// What a SentencePiece model does not say itself.
struct SentencePieceSetup {
  std::string format = "SentencePiece";  ///< beginning of kind()
  bool adds_bos = true, adds_eos = false;
  std::int64_t bos_id = -1, eos_id = -1, unk_id = -1;  ///< -1: by type and name of the pieces
  std::string chat_template;
};
/// @param where  file, for messages
/// @throws Error BadFormat
std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(SentencePieceModel model, const SentencePieceSetup& setup,
                                                              const std::string& where);

}  // namespace qs
