#include "backend/tokenizer/gguf_tokenizer.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "backend/formats/gguf.h"
#include "backend/tokenizer/gpt2_tokenizer.h"
#include "backend/tokenizer/hf_tokenizer.h"
#include "backend/tokenizer/sentencepiece_tokenizer.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Type = SentencePieceModel::Type;

Type type_of(const GgufVocabulary& vocabulary, std::size_t id) {
  return vocabulary.types.empty() ? Type::Normal : static_cast<Type>(vocabulary.types[id]);
}

void check(const GgufVocabulary& vocabulary, const std::string& where) {
  const auto bad = [&](const std::string& what) { throw Error(ErrorCode::BadFormat, "'" + where + "' " + what); };
  const std::size_t count = vocabulary.tokens.size();
  if (count == 0) bad("has a vocabulary without tokens.");
  for (const auto& [name, size] :
       {std::pair{"scores", vocabulary.scores.size()}, std::pair{"token types", vocabulary.types.size()}}) {
    if (size != 0 && size != count)
      bad("has " + std::to_string(count) + " tokens but " + std::to_string(size) + " " + name + ".");
  }
  for (std::size_t id = 0; id < count; ++id) {
    if (utf8::first_invalid(vocabulary.tokens[id]) != std::string::npos)
      bad("has a token " + std::to_string(id) + " that is not UTF-8.");
    if (!vocabulary.scores.empty() && !std::isfinite(vocabulary.scores[id]))
      bad("gives token " + std::to_string(id) + " a score that is not finite.");
    if (!vocabulary.types.empty() && (vocabulary.types[id] < 1 || vocabulary.types[id] > 6))
      bad("gives token " + std::to_string(id) + " the unknown type " + std::to_string(vocabulary.types[id]) + ".");
  }
  for (const auto& [name, id] : {std::pair{"BOS", vocabulary.bos_id}, std::pair{"EOS", vocabulary.eos_id},
                                 std::pair{"unknown", vocabulary.unk_id}}) {
    if (id < -1 || id >= static_cast<std::int64_t>(count))
      bad("gives its " + std::string(name) + " token the id " + std::to_string(id) + "; it has " +
          std::to_string(count) + " tokens.");
  }
  for (const std::string& merge : vocabulary.merges)
    if (utf8::first_invalid(merge) != std::string::npos) bad("has a merge that is not UTF-8.");
  if (utf8::first_invalid(vocabulary.chat_template) != std::string::npos) bad("has a chat template that is not UTF-8.");
}

std::shared_ptr<const Tokenizer> make_sentencepiece(const GgufVocabulary& vocabulary, const std::string& where) {
  SentencePieceModel model;
  const bool unigram = vocabulary.model == "t5";
  model.algorithm = unigram ? SentencePieceModel::Algorithm::Unigram : SentencePieceModel::Algorithm::Bpe;
  if (vocabulary.scores.empty())
    throw Error(ErrorCode::BadFormat, "'" + where + "' has a vocabulary of the kind \"" + vocabulary.model +
                                          "\" without scores (tokenizer.ggml.scores).");
  std::set<std::string_view> bytes;
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    Type type = type_of(vocabulary, id);
    if (type == Type::Unused) type = Type::Control;  // never made from text
    model.pieces.push_back({vocabulary.tokens[id], vocabulary.scores[id], type});
    if (type == Type::Byte) bytes.insert(vocabulary.tokens[id]);
  }
  model.byte_fallback = bytes.size() == 256;
  model.charsmap = vocabulary.charsmap;
  model.add_dummy_prefix = vocabulary.add_space_prefix.value_or(true);
  model.remove_extra_whitespaces = vocabulary.remove_extra_whitespaces.value_or(false);
  SentencePieceSetup setup;
  setup.format = "GGUF SentencePiece";
  setup.adds_bos = vocabulary.adds_bos.value_or(!unigram);
  setup.adds_eos = vocabulary.adds_eos.value_or(unigram);
  setup.bos_id = vocabulary.bos_id;
  setup.eos_id = vocabulary.eos_id;
  setup.unk_id = vocabulary.unk_id;
  setup.chat_template = vocabulary.chat_template;
  return make_sentencepiece_tokenizer(std::move(model), setup, where);
}

std::shared_ptr<const Tokenizer> make_byte_level(const GgufVocabulary& vocabulary, const std::string& where) {
  const auto words = gguf_words(vocabulary.pre);
  if (!words) {
    throw Error(ErrorCode::Unsupported, "'" + where + "' cuts words in the way \"" + vocabulary.pre +
                                            "\" (tokenizer.ggml.pre), which is not known here. A tokenizer.json of the "
                                            "model may be readable.");
  }
  nlohmann::json tokens = nlohmann::json::object(), added = nlohmann::json::array();
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    const Type type = type_of(vocabulary, id);
    const bool control = type == Type::Control || type == Type::Unknown;
    if (control || type == Type::UserDefined || tokens.contains(token)) {
      const bool stands_for_itself = control || type == Type::UserDefined;
      // A text that a second token repeats is never made from text, but its id must be known.
      added.push_back({{"id", id},
                       {"content", stands_for_itself ? token : "[" + std::to_string(id) + "] " + token},
                       {"special", type != Type::UserDefined},
                       {"normalized", false}});
    } else {
      tokens[token] = id;
    }
  }
  const auto name = [&](std::int64_t id) { return id < 0 ? "" : vocabulary.tokens[static_cast<std::size_t>(id)]; };
  TokenizerConfig config;
  config.bos_token = name(vocabulary.bos_id);
  config.eos_token = name(vocabulary.eos_id);
  config.adds_bos = vocabulary.adds_bos.value_or(words->adds_bos);
  config.adds_eos = vocabulary.adds_eos.value_or(false);
  config.chat_template = vocabulary.chat_template;
  const nlohmann::json json = {{"model",
                                {{"type", "BPE"},
                                 {"vocab", std::move(tokens)},
                                 {"merges", vocabulary.merges},
                                 {"ignore_merges", words->ignore_merges}}},
                               {"added_tokens", std::move(added)},
                               {"pre_tokenizer", byte_level_pre_tokenizer(words->expressions)},
                               {"decoder", {{"type", "ByteLevel"}}}};
  return make_hf_tokenizer(json, config, where, "GGUF");
}

}  // namespace

GgufVocabulary read_gguf_vocabulary(const GgufFile& file) {
  GgufVocabulary vocabulary;
  const std::string prefix = "tokenizer.ggml.";
  const auto text = [&](const std::string& key) { return std::string(file.text(key).value_or("")); };
  vocabulary.model = text(prefix + "model");
  const auto tokens = file.texts(prefix + "tokens");
  if (vocabulary.model.empty() || !tokens)
    throw Error(ErrorCode::NotFound, "'" + file.path() + "' carries no vocabulary (tokenizer.ggml.tokens).");
  vocabulary.tokens.assign(tokens->begin(), tokens->end());
  vocabulary.pre = text(prefix + "pre");
  if (const auto scores = file.reals(prefix + "scores")) {
    for (const double score : *scores) vocabulary.scores.push_back(static_cast<float>(score));
  }
  if (const auto types = file.integers(prefix + "token_type")) vocabulary.types = *types;
  if (const auto merges = file.texts(prefix + "merges")) vocabulary.merges.assign(merges->begin(), merges->end());
  if (const auto map = file.integers(prefix + "precompiled_charsmap")) {
    for (const std::int64_t byte : *map) vocabulary.charsmap.push_back(static_cast<char>(byte));
  }
  vocabulary.bos_id = file.integer(prefix + "bos_token_id").value_or(-1);
  vocabulary.eos_id = file.integer(prefix + "eos_token_id").value_or(-1);
  vocabulary.unk_id = file.integer(prefix + "unknown_token_id").value_or(-1);
  vocabulary.adds_bos = file.flag(prefix + "add_bos_token");
  vocabulary.adds_eos = file.flag(prefix + "add_eos_token");
  vocabulary.add_space_prefix = file.flag(prefix + "add_space_prefix");
  vocabulary.remove_extra_whitespaces = file.flag(prefix + "remove_extra_whitespaces");
  vocabulary.chat_template = text("tokenizer.chat_template");
  return vocabulary;
}

std::shared_ptr<const Tokenizer> make_gguf_tokenizer(const GgufVocabulary& vocabulary, const std::string& where) {
  check(vocabulary, where);
  if (vocabulary.model == "llama" || vocabulary.model == "t5") return make_sentencepiece(vocabulary, where);
  if (vocabulary.model == "gpt2") return make_byte_level(vocabulary, where);
  throw Error(ErrorCode::Unsupported, "'" + where + "' carries a vocabulary of the kind \"" + vocabulary.model +
                                          "\" (tokenizer.ggml.model); llama, gpt2 and t5 can be read.");
}

std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const std::filesystem::path& gguf) {
  return make_gguf_tokenizer(read_gguf_vocabulary(GgufFile::read(gguf)), gguf.string());
}

}  // namespace qs
