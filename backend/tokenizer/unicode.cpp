#include "backend/tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs::unicode {
namespace {

utf8proc_category_t category(char32_t c) { return utf8proc_category(static_cast<utf8proc_int32_t>(c)); }

char32_t code_point(std::string_view text, std::size_t at, std::size_t& length) {
  length = utf8::length_of(static_cast<unsigned char>(text[at]));
  return utf8::to_code_points(text.substr(at, length)).front();
}

}  // namespace

std::string normalize(std::string_view text, Form form) {
  int options = UTF8PROC_STABLE;
  options |= form == Form::Nfc || form == Form::Nfkc ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == Form::Nfkc || form == Form::Nfkd) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* normalized = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &normalized, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(normalized, &std::free);
  if (length < 0) {
    throw Error(ErrorCode::InvalidArgument, "The text cannot be normalized; UTF-8 was expected.",
                utf8proc_errmsg(length));
  }
  return {reinterpret_cast<const char*>(normalized), static_cast<std::size_t>(length)};
}

std::string to_lower(std::string_view text) {
  std::string result;
  for (const char32_t c : utf8::to_code_points(text)) {
    if (c == 0x130) {  // the only character whose lower case is two
      result += "i\xCC\x87";
    } else {
      utf8::append(result, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  return result;
}

std::string capitalize(std::string_view text) {
  if (text.empty()) return {};
  const std::size_t first = std::min(text.size(), utf8::length_of(static_cast<unsigned char>(text.front())));
  std::string result;
  for (const char32_t c : utf8::to_code_points(text.substr(0, first)))
    utf8::append(result, static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c))));
  return result + to_lower(text.substr(first));
}

std::string without_marks(std::string_view text) {
  std::string result;
  for (const char32_t c : utf8::to_code_points(text)) {
    if (category(c) < UTF8PROC_CATEGORY_MN || category(c) > UTF8PROC_CATEGORY_ME) utf8::append(result, c);
  }
  return result;
}

bool is_space(char32_t c) {
  if (c < 0x80) return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || (category(c) >= UTF8PROC_CATEGORY_ZS && category(c) <= UTF8PROC_CATEGORY_ZP);
}

bool is_word(char32_t c) {
  switch (category(c)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
      return true;
    default:
      return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9);
  }
}

bool is_punctuation(char32_t c) {
  if (c < 0x80) return (c > 32 && c < 48) || (c > 57 && c < 65) || (c > 90 && c < 97) || (c > 122 && c < 127);
  const auto what = category(c);
  return what >= UTF8PROC_CATEGORY_PC && what <= UTF8PROC_CATEGORY_PO;
}

void for_each_grapheme(std::string_view text, const std::function<void(std::size_t, std::size_t)>& found) {
  std::size_t begin = 0, length = 0;
  utf8proc_int32_t state = 0;
  char32_t previous = 0;
  for (std::size_t at = 0; at < text.size(); at += length) {
    const char32_t c = code_point(text, at, length);
    if (at > 0 && utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(previous),
                                                   static_cast<utf8proc_int32_t>(c), &state)) {
      found(begin, at);
      begin = at;
    }
    previous = c;
  }
  if (begin < text.size()) found(begin, text.size());
}

}  // namespace qs::unicode
