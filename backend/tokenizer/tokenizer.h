#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backend/tokenizer/piece_table.h"

namespace qs {

enum class TokenKind { Normal, Byte, Special, Unknown };

/// How a text is read.
struct EncodeOptions {
  /// Special tokens spelt out in the text become their ids. False: they stay plain text, and so do other added tokens
  /// that look like markup ("<...>", "[...]"), so nobody can write a turn of a chat into their own message.
  bool special_tokens = true;
  bool text_start = true;  ///< the text begins here; false: it goes on behind a special token
};

/// A token that stands for itself, such as "<|im_end|>".
struct SpecialToken {
  std::string name;
  std::int64_t id = -1;
  bool strip_left = false, strip_right = false;  ///< swallows the white space before, behind it
};

/// Where a special token's name stands in a text.
struct SpecialMatch {
  std::size_t begin = 0;
  const SpecialToken* token = nullptr;  ///< owned by the tokenizer
};

/// Text to ids and back. Immutable; safe to use from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  virtual std::string kind() const = 0;  ///< "SentencePiece BPE", "tokenizer.json BPE"
  virtual std::int64_t vocab_size() const = 0;
  virtual std::int64_t bos_id() const = 0;  ///< -1 when there is none
  virtual std::int64_t eos_id() const = 0;
  virtual bool adds_bos() const = 0;  ///< whether the model's own pipeline starts a text with BOS

  /// Ids without BOS or EOS. @throws Error InvalidArgument when `text` is not UTF-8
  virtual std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options = {}) const = 0;
  virtual std::string decode(const std::vector<std::int64_t>& ids) const = 0;
  /// The raw bytes a token adds in the middle of a text; may be part of a UTF-8 character. Special tokens give "".
  virtual std::string token_bytes(std::int64_t id) const = 0;
  /// For display: "▁the" as " the", a byte token as "<0x0A>", special tokens by name.
  virtual std::string token_text(std::int64_t id) const = 0;
  virtual TokenKind token_kind(std::int64_t id) const = 0;
  /// Every special token whose name stands in `text`, in order; leftmost, the longest of those.
  std::vector<SpecialMatch> find_special(std::string_view text) const;

  /// What the model's own pipeline puts before and behind a text.
  virtual std::vector<std::int64_t> prefix_ids() const;  ///< BOS when adds_bos()
  virtual std::vector<std::int64_t> suffix_ids() const { return {}; }
  /// The template (Jinja) that comes with the model; empty when there is none.
  const std::string& chat_template() const { return chat_template_; }

 protected:
  /// @throws Error InvalidArgument when `text` is not UTF-8
  static void check_text(std::string_view text);
  /// @throws Error InvalidArgument when `id` is outside the vocabulary
  void check_id(std::int64_t id) const;
  void set_special_tokens(std::vector<SpecialToken> tokens);
  std::string chat_template_;

 private:
  std::vector<SpecialToken> special_tokens_;
  PieceTable special_names_;
};

/// Whether a token is written like markup: "<...>" or "[...]".
bool looks_like_markup(std::string_view token);

/// encode() with what the tokenizer's pipeline puts in front, usually BOS.
std::vector<std::int64_t> encode_with_bos(const Tokenizer& tokenizer, std::string_view text);

/// Joins token bytes and releases whole UTF-8 characters only.
class StreamingDecoder {
 public:
  /// @param at_text_start  the first token begins the text, so the space that some tokenizers put in front of a text is
  ///                       dropped, as decode() does; false when a prompt stands before it
  explicit StreamingDecoder(const Tokenizer& tokenizer, bool at_text_start = false)
      : tokenizer_(&tokenizer), first_(at_text_start) {}
  std::string push(std::int64_t id);  ///< the text that became complete
  std::string finish();               ///< what is left, invalid bytes as U+FFFD

 private:
  const Tokenizer* tokenizer_;
  std::string pending_;
  bool first_ = false;
};

/// Picks the tokenizer of a model folder: tokenizer.json, else tokenizer.model, else vocab.json with merges.txt; of a
/// GGUF file the vocabulary inside; of a llama2.c model the tokenizer file beside it.
/// @throws Error NotFound (none there), BadFormat, Unsupported (a component it does not know, by name)
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file);

}  // namespace qs
