#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/tokenizer/tokenizer.h"

namespace qs {

class GgufFile;

/// The vocabulary that a GGUF file carries in its metadata ("tokenizer.ggml.*").
struct GgufVocabulary {
  std::string model;                ///< "llama" (SentencePiece BPE), "gpt2" (byte-level BPE), "t5" (unigram)
  std::string pre;                  ///< for gpt2: how words are cut; empty in old files
  std::vector<std::string> tokens;  ///< by id
  std::vector<float> scores;        ///< empty, or one a token
  std::vector<std::int64_t> types;  ///< empty, or one a token: 1 normal, 2 unknown, 3 control, 4 user, 5 unused, 6 byte
  std::vector<std::string> merges;  ///< "left right"
  std::string charsmap;
  std::int64_t bos_id = -1, eos_id = -1, unk_id = -1;
  std::optional<bool> adds_bos, adds_eos, add_space_prefix, remove_extra_whitespaces;
  std::string chat_template;
};

/// @throws Error NotFound (no vocabulary inside), BadFormat
GgufVocabulary read_gguf_vocabulary(const GgufFile& file);

/// @param where  file, for messages
/// @throws Error BadFormat, Unsupported naming the tokenizer model or the way to cut words
std::shared_ptr<const Tokenizer> make_gguf_tokenizer(const GgufVocabulary& vocabulary, const std::string& where);

std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const std::filesystem::path& gguf);

/// The regular expressions behind a name of "tokenizer.ggml.pre", and whether a word that is a token is taken whole.
struct GgufWords {
  std::vector<std::string> expressions;
  bool ignore_merges = false;
  bool adds_bos = false;  ///< when the file does not say
};
/// @return nullopt for an unknown name
std::optional<GgufWords> gguf_words(const std::string& pre);

}  // namespace qs
