#include "backend/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "backend/types/error.h"

namespace qs {
namespace {

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

}  // namespace

Regex::Regex(const std::string& pattern, const std::string& where) : pattern_(pattern), where_(where) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                                   &error, &offset, nullptr);
  if (!code) {
    throw Error(ErrorCode::BadFormat, "'" + where +
                                          "' holds a regular expression that cannot be read: " + message_of(error) +
                                          " at character " + std::to_string(offset) + " of \"" + pattern + "\".");
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
}

void Regex::for_each(std::string_view text, const std::function<void(std::size_t, std::size_t)>& found) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code, nullptr), &pcre2_match_data_free);
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
  std::size_t at = 0;
  while (at < text.size()) {
    const int rc = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                               PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK, data.get(), nullptr);
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) {
      throw Error(ErrorCode::BadFormat, "The regular expression \"" + pattern_ + "\" of '" + where_ +
                                            "' could not be applied to this text: " + message_of(rc) + ".");
    }
    found(ends[0], ends[1]);
    if (ends[1] <= at && ends[1] <= ends[0]) return;
    at = ends[1];
  }
}

std::string Regex::replace_all(std::string_view text, std::string_view by) const {
  std::string result;
  std::size_t done = 0;
  for_each(text, [&](std::size_t begin, std::size_t end) {
    result.append(text.substr(done, begin - done)).append(by);
    done = end;
  });
  return result.append(text.substr(done));
}

std::string Regex::escape(std::string_view literal) {
  std::string result;
  for (const char c : literal) {
    if (std::string_view("\\^$.|?*+()[]{}#- ").find(c) != std::string_view::npos) result.push_back('\\');
    result.push_back(c);
  }
  return result;
}

}  // namespace qs
