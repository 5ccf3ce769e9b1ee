#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace qs {

/// One step of a tokenizer.json's `pre_tokenizer`: cuts a text into the words that BPE works on.
class HfPreTokenizer {
 public:
  virtual ~HfPreTokenizer() = default;
  /// @param at_start  whether `word` begins the text (some steps put a space there only)
  virtual void apply(const std::string& word, bool at_start, std::vector<std::string>& words) const = 0;
};

/// Knows Sequence, ByteLevel, Digits, Split, Metaspace, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit.
/// A further component is one more class and one line in the table.
/// @return null when `json` is null
/// @throws Error Unsupported naming the component or option, BadFormat
std::shared_ptr<const HfPreTokenizer> make_hf_pre_tokenizer(const nlohmann::json& json, const std::string& where);

/// The printable characters that byte-level BPE writes bytes as (GPT-2): byte to UTF-8.
const std::vector<std::string>& byte_level_characters();

std::string byte_level_encode(std::string_view bytes);
/// Bytes of a byte-level token; a token with a character that stands for no byte is returned as it is.
std::string byte_level_decode(std::string_view token);

}  // namespace qs
