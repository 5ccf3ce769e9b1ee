#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "backend/tokenizer/piece_table.h"

namespace qs {

/// A token that is looked for in the text itself, before the model sees it.
struct AddedToken {
  std::int64_t id = 0;
  std::string content;
  bool special = false, normalized = false, strip_left = false, strip_right = false, single_word = false;
};

/// A stretch of a text: an added token with the space it swallowed, or what stands between two of them.
struct TextSegment {
  std::string_view text;
  std::int64_t id = -1;  ///< -1 for plain text
};

/// Finds added tokens in a text: leftmost, the longest of those.
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);
  /// @param special  whether special tokens, and others that look like markup, count; otherwise they stay text
  std::vector<TextSegment> split(std::string_view text, bool special) const;

 private:
  std::vector<AddedToken> tokens_;
  PieceTable table_;  ///< content to place in tokens_
};

}  // namespace qs
