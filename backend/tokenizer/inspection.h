#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/tokenizer/tokenizer.h"

namespace qs {

/// One token of an inspected text.
struct InspectedToken {
  std::int64_t id = 0;
  std::string text;  ///< as token_text()
  TokenKind kind = TokenKind::Normal;
  bool whole_characters = true;  ///< false: its bytes end or begin inside a character
  /// Bytes of the text that it stands for. Equal when it stands for none: a space that the tokenizer put there itself.
  /// Where the tokenizer rewrote the text (normalization), neighbours share the stretch.
  std::size_t begin = 0, end = 0;
};

/// Ids of a text with the places they come from.
struct TokenizerInspection {
  std::vector<InspectedToken> tokens;
  std::size_t bytes = 0, characters = 0;  ///< of the text
  bool exact = true;                      ///< every place is known to the byte
};

/// @throws Error InvalidArgument when `text` is not UTF-8
TokenizerInspection inspect_text(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options = {});

}  // namespace qs
