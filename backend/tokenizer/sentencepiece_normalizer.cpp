#include "backend/tokenizer/sentencepiece_normalizer.h"

#include "backend/tokenizer/utf8.h"

namespace qs {

SentencePieceNormalizer::SentencePieceNormalizer(const SentencePieceModel& model, const std::string& where)
    : map_(model.charsmap, where),
      space_(model.escape_whitespaces ? "\xE2\x96\x81" : " "),
      add_dummy_prefix_(model.add_dummy_prefix),
      remove_extra_whitespaces_(model.remove_extra_whitespaces),
      as_suffix_(model.whitespace_as_suffix) {
  std::vector<std::pair<std::string, std::int32_t>> pieces;
  for (const auto& piece : model.pieces) {
    if (piece.type == SentencePieceModel::Type::UserDefined) pieces.emplace_back(piece.text, 0);
  }
  user_defined_ = PieceTable(std::move(pieces));
}

SentencePieceNormalizer::Step SentencePieceNormalizer::next(std::string_view text) const {
  if (const auto length = user_defined_.longest_prefix(text).first; length > 0) return {text.substr(0, length), length};
  if (const Charsmap::Match match = map_.longest(text); match.length > 0) return {match.replacement, match.length};
  const std::size_t length = utf8::length_of(static_cast<unsigned char>(text[0]));
  return {text.substr(0, length), length};
}

std::string SentencePieceNormalizer::apply(std::string_view text) const {
  while (remove_extra_whitespaces_ && !text.empty()) {
    const Step step = next(text);
    if (step.text != " ") break;
    text.remove_prefix(step.length);
  }
  std::string result;
  if (text.empty()) return result;
  if (add_dummy_prefix_ && !as_suffix_) result += space_;
  bool after_space = remove_extra_whitespaces_;
  while (!text.empty()) {
    Step step = next(text);
    text.remove_prefix(step.length);
    while (after_space && !step.text.empty() && step.text.front() == ' ') step.text.remove_prefix(1);
    if (step.text.empty()) continue;
    for (const char c : step.text) {
      if (c == ' ') {
        result += space_;
      } else {
        result += c;
      }
    }
    after_space = remove_extra_whitespaces_ && step.text.back() == ' ';
  }
  while (remove_extra_whitespaces_ && result.ends_with(space_)) result.resize(result.size() - space_.size());
  if (add_dummy_prefix_ && as_suffix_) result += space_;
  return result;
}

}  // namespace qs
