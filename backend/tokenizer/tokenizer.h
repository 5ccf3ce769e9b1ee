#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace qs {

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
  virtual std::vector<std::int64_t> encode(std::string_view text) const = 0;
  virtual std::string decode(const std::vector<std::int64_t>& ids) const = 0;
  /// The raw bytes a token adds in the middle of a text; may be part of a UTF-8 character. Special tokens give "".
  virtual std::string token_bytes(std::int64_t id) const = 0;
  /// For display: "▁the" as " the", a byte token as "<0x0A>", special tokens by name.
  virtual std::string token_text(std::int64_t id) const = 0;
};

/// encode() with BOS in front when the tokenizer's pipeline adds one.
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

/// Picks the tokenizer of a model folder: tokenizer.json, else tokenizer.model; of a llama2.c model: the tokenizer file
/// beside it. @throws Error NotFound (none there), BadFormat, Unsupported (a component it does not know, by name)
std::shared_ptr<const Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file);

}  // namespace qs
