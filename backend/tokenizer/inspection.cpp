#include "backend/tokenizer/inspection.h"

#include <algorithm>

#include "backend/tokenizer/utf8.h"

namespace qs {
namespace {

/// How far ahead a token is looked for when the text at hand is not its own.
constexpr std::size_t kSearch = 64;

}  // namespace

TokenizerInspection inspect_text(const Tokenizer& tokenizer, std::string_view text, const EncodeOptions& options) {
  TokenizerInspection result;
  result.bytes = text.size();
  for (const std::int64_t id : tokenizer.encode(text, options)) {
    InspectedToken token;
    token.id = id;
    token.text = tokenizer.token_text(id);
    token.kind = tokenizer.token_kind(id);
    result.tokens.push_back(std::move(token));
  }
  result.characters = utf8::to_code_points(text).size();
  std::size_t at = 0;        // bytes of the text that have an owner
  std::size_t unplaced = 0;  // first token whose place is not known yet
  const auto place_rest = [&](std::size_t last, std::size_t end) {
    if (unplaced < last || at < end) result.exact = result.exact && at == end;
    for (std::size_t i = unplaced; i < last; ++i) {
      result.tokens[i].begin = at;
      result.tokens[i].end = end;
    }
  };
  for (std::size_t i = 0; i < result.tokens.size(); ++i) {
    InspectedToken& token = result.tokens[i];
    std::string bytes = tokenizer.token_bytes(token.id);
    token.whole_characters = utf8::first_invalid(bytes) == std::string::npos;
    if (bytes.empty() && token.kind == TokenKind::Special) bytes = token.text;
    if (bytes.empty()) continue;
    std::size_t found = text.substr(at, kSearch + bytes.size()).find(bytes);
    const bool follows = unplaced == i;
    if ((found != 0 || !follows) && bytes.front() == ' ') {
      // The space may be one that the tokenizer added; a token that is nothing but that stands for no bytes.
      const std::string rest = bytes.substr(1);
      const std::size_t without = rest.empty() ? 0 : text.substr(at, kSearch + rest.size()).find(rest);
      if (without != std::string_view::npos && (found == std::string_view::npos || without < found)) {
        found = without;
        bytes = rest;
      }
    }
    if (found == std::string_view::npos) continue;
    place_rest(i, at + found);
    token.begin = at + found;
    token.end = token.begin + bytes.size();
    at = token.end;
    unplaced = i + 1;
  }
  place_rest(result.tokens.size(), text.size());
  return result;
}

}  // namespace qs
