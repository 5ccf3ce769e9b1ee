#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qs {

/// SentencePiece's precompiled normalization table ("precompiled_charsmap").
///
/// Its bytes: u32 size of a trie in bytes; the trie, a Darts double array of u32 units; then the replacements, each
/// ended by a zero byte. A unit holds: bit 31 and bits 0..7 the label, bit 8 whether a value hangs below, bits 10..30
/// the offset to the children, shifted left by 8 when bit 9 is set. A value unit has bit 31 set; its other bits are the
/// start of a replacement.
class Charsmap {
 public:
  Charsmap() = default;
  /// @throws Error BadFormat when sizes contradict each other
  Charsmap(std::string_view bytes, const std::string& where);

  bool empty() const { return units_.empty(); }
  struct Match {
    std::size_t length = 0;  ///< bytes of the text; 0: nothing matches
    std::string_view replacement;
  };
  Match longest(std::string_view text) const;
  Match shortest(std::string_view text) const;

  /// The rule of tokenizer.json's "Precompiled": a grapheme of fewer than 6 bytes is replaced as a whole when the table
  /// holds a beginning of it, otherwise character by character.
  std::string apply_by_grapheme(std::string_view text) const;

 private:
  Match find(std::string_view text, bool longest) const;
  std::vector<std::uint32_t> units_;
  std::string replacements_;
};

}  // namespace qs
