#include "backend/tokenizer/utf8.h"

namespace qs::utf8 {

Sequence classify(std::string_view text, std::size_t begin, std::size_t& length) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(begin);
  length = 1;
  if (lead < 0x80) return Sequence::Complete;
  if (lead < 0xC2 || lead > 0xF4) return Sequence::Invalid;
  const std::size_t whole = length_of(lead);
  unsigned char low = 0x80, high = 0xBF;
  if (lead == 0xE0) low = 0xA0;
  if (lead == 0xED) high = 0x9F;
  if (lead == 0xF0) low = 0x90;
  if (lead == 0xF4) high = 0x8F;
  for (std::size_t i = 1; i < whole; ++i) {
    if (begin + i >= text.size()) {
      length = i;
      return Sequence::Incomplete;
    }
    if (byte(begin + i) < low || byte(begin + i) > high) return Sequence::Invalid;
    low = 0x80;
    high = 0xBF;
  }
  length = whole;
  return Sequence::Complete;
}

std::size_t first_invalid(std::string_view text) {
  std::size_t length = 0;
  for (std::size_t i = 0; i < text.size(); i += length) {
    if (classify(text, i, length) != Sequence::Complete) return i;
  }
  return std::string_view::npos;
}

std::string replace_invalid(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    std::size_t length = 0;
    if (classify(text, i, length) == Sequence::Complete) {
      result.append(text.substr(i, length));
      i += length;
    } else {
      result.append(kReplacement);
      ++i;
    }
  }
  return result;
}

std::vector<char32_t> to_code_points(std::string_view text) {
  std::vector<char32_t> result;
  result.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const std::size_t length = length_of(lead);
    char32_t code_point = length == 1 ? lead : lead & (0xFFu >> (length + 1));
    for (std::size_t j = 1; j < length; ++j)
      code_point = code_point << 6 | (static_cast<unsigned char>(text[i + j]) & 0x3Fu);
    result.push_back(code_point);
    i += length;
  }
  return result;
}

void append(std::string& text, char32_t code_point) {
  const auto put = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

}  // namespace qs::utf8
