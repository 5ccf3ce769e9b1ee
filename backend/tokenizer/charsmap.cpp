#include "backend/tokenizer/charsmap.h"

#include <cstring>

#include "backend/tokenizer/unicode.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {

Charsmap::Charsmap(std::string_view bytes, const std::string& where) {
  if (bytes.empty()) return;
  std::uint32_t size = 0;
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::BadFormat, "'" + where + "' holds a normalization table that is damaged: " + what + ".");
  };
  if (bytes.size() < sizeof size) fail("it has " + std::to_string(bytes.size()) + " bytes");
  std::memcpy(&size, bytes.data(), sizeof size);
  bytes.remove_prefix(sizeof size);
  if (size == 0 || size % 4 != 0 || size > bytes.size()) {
    fail("its trie of " + std::to_string(size) + " bytes does not fit the " + std::to_string(bytes.size()) +
         " bytes there are");
  }
  units_.resize(size / 4);
  std::memcpy(units_.data(), bytes.data(), size);
  replacements_ = bytes.substr(size);
  if (replacements_.empty() || replacements_.back() != '\0') fail("its replacements do not end with a zero byte");
  for (std::size_t i = 0; i < replacements_.size();) {
    const std::string_view text(replacements_.c_str() + i);
    if (utf8::first_invalid(text) != std::string_view::npos)
      fail("the replacement at byte " + std::to_string(i) + " is not UTF-8");
    i += text.size() + 1;
  }
}

Charsmap::Match Charsmap::find(std::string_view text, bool longest) const {
  Match best;
  if (units_.empty()) return best;
  const auto offset = [](std::uint32_t unit) { return (unit >> 10) << ((unit & 1U << 9) >> 6); };
  std::size_t at = offset(units_[0]);
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0) break;
    at ^= byte;
    if (at >= units_.size()) break;
    const std::uint32_t unit = units_[at];
    if ((unit & 0x800000FFU) != byte) break;
    at ^= offset(unit);
    if (at >= units_.size()) break;
    if ((unit >> 8 & 1U) == 0) continue;
    const std::uint32_t value = units_[at] & 0x7FFFFFFFU;
    // A damaged table could match or point into the middle of a character.
    const auto inside = [](char c) { return (static_cast<unsigned char>(c) & 0xC0U) == 0x80; };
    if (value >= replacements_.size() || inside(replacements_[value])) continue;
    if (i + 1 < text.size() && inside(text[i + 1])) continue;
    best = {i + 1, std::string_view(replacements_.c_str() + value)};
    if (!longest) break;
  }
  return best;
}

Charsmap::Match Charsmap::longest(std::string_view text) const { return find(text, true); }
Charsmap::Match Charsmap::shortest(std::string_view text) const { return find(text, false); }

std::string Charsmap::apply_by_grapheme(std::string_view text) const {
  std::string result;
  unicode::for_each_grapheme(text, [&](std::size_t begin, std::size_t end) {
    const std::string_view grapheme = text.substr(begin, end - begin);
    if (grapheme.size() < 6) {
      if (const Match match = shortest(grapheme); match.length > 0) {
        result += match.replacement;
        return;
      }
    }
    for (std::size_t i = 0; i < grapheme.size();) {
      const std::string_view character = grapheme.substr(i, utf8::length_of(static_cast<unsigned char>(grapheme[i])));
      const Match match = shortest(character);
      result += match.length > 0 ? match.replacement : character;
      i += character.size();
    }
  });
  return result;
}

}  // namespace qs
