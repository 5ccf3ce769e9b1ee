#include "backend/tokenizer/added_tokens.h"

#include "backend/tokenizer/tokenizer.h"
#include "backend/tokenizer/unicode.h"
#include "backend/tokenizer/utf8.h"

namespace qs {
namespace {

bool continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80; }

/// Start of the character before `at`; `at` > 0.
std::size_t before(std::string_view text, std::size_t at) {
  do --at;
  while (at > 0 && continues(text[at]));
  return at;
}

char32_t character(std::string_view text, std::size_t at) {
  return utf8::to_code_points(text.substr(at, utf8::length_of(static_cast<unsigned char>(text[at])))).front();
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::vector<std::pair<std::string, std::int32_t>> pieces;
  for (std::size_t i = 0; i < tokens_.size(); ++i)
    pieces.emplace_back(tokens_[i].content, static_cast<std::int32_t>(i));
  table_ = PieceTable(std::move(pieces));
}

std::vector<TextSegment> AddedTokenFinder::split(std::string_view text, bool special) const {
  std::vector<TextSegment> segments;
  std::size_t done = 0;
  for (std::size_t at = 0; at < text.size() && !table_.empty();) {
    const auto [length, place] = table_.longest_prefix(text.substr(at));
    if (place < 0) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[static_cast<std::size_t>(place)];
    std::size_t begin = at, end = at + length;
    const bool inside_word =
        token.single_word && ((begin > 0 && unicode::is_word(character(text, before(text, begin)))) ||
                              (end < text.size() && unicode::is_word(character(text, end))));
    at = end;
    if (inside_word || (!special && (token.special || looks_like_markup(token.content)))) continue;
    while (token.strip_left && begin > done && unicode::is_space(character(text, before(text, begin))))
      begin = before(text, begin);
    while (token.strip_right && end < text.size() && unicode::is_space(character(text, end)))
      end += utf8::length_of(static_cast<unsigned char>(text[end]));
    if (begin > done) segments.push_back({text.substr(done, begin - done), -1});
    segments.push_back({text.substr(begin, end - begin), token.id});
    at = done = end;
  }
  if (done < text.size()) segments.push_back({text.substr(done), -1});
  return segments;
}

}  // namespace qs
