#include "backend/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <cstdint>
#include <new>

#include "backend/types/error.h"

namespace qs {
namespace {

// Ten times what the known patterns need for a megabyte of one kind of character; about a second of work.
constexpr std::uint32_t kMatchLimit = 5'000'000;
constexpr std::uint32_t kHeapLimitKib = 64 * 1024;
constexpr std::size_t kMaxPattern = 64 * 1024;
constexpr std::size_t kJitStackBytes = 1024 * 1024;

struct Limits {
  Limits() : context(pcre2_match_context_create(nullptr)), stack(nullptr) {
    if (!context) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKib);
    stack = pcre2_jit_stack_create(32 * 1024, kJitStackBytes, nullptr);
    if (stack) pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Limits() {
    pcre2_match_context_free(context);
    if (stack) pcre2_jit_stack_free(stack);
  }
  Limits(const Limits&) = delete;
  Limits& operator=(const Limits&) = delete;
  pcre2_match_context* context;
  pcre2_jit_stack* stack;
};

std::string message_of(int code) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(code, buffer, sizeof buffer);
  return reinterpret_cast<const char*>(buffer);
}

std::string shown(const std::string& pattern) {
  return pattern.size() <= 200 ? pattern : pattern.substr(0, 200) + "...";
}

}  // namespace

Regex::Regex(const std::string& pattern, const std::string& where) : pattern_(pattern), where_(where) {
  if (pattern.size() > kMaxPattern) {
    throw Error(ErrorCode::BadFormat, "'" + where + "' holds a regular expression of " +
                                          std::to_string(pattern.size()) + " bytes; at most " +
                                          std::to_string(kMaxPattern) + " are read.");
  }
  int error = 0;
  PCRE2_SIZE offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), PCRE2_UTF | PCRE2_UCP,
                                   &error, &offset, nullptr);
  if (!code) {
    throw Error(ErrorCode::BadFormat,
                "'" + where + "' holds a regular expression that cannot be read: " + message_of(error) +
                    " at character " + std::to_string(offset) + " of \"" + shown(pattern) + "\".");
  }
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  code_ = std::shared_ptr<const void>(
      code, [](const void* p) { pcre2_code_free(static_cast<pcre2_code*>(const_cast<void*>(p))); });
}

void Regex::search(std::string_view text, const std::function<void(const std::size_t*, int)>& found) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> data(
      pcre2_match_data_create_from_pattern(code, nullptr), &pcre2_match_data_free);
  thread_local const Limits limits;
  const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(data.get());
  std::size_t at = 0;
  while (at < text.size()) {
    const auto match = [&](std::uint32_t options) {
      return pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                         PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK | options, data.get(), limits.context);
    };
    int rc = match(0);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) rc = match(PCRE2_NO_JIT);
    if (rc == PCRE2_ERROR_NOMATCH) return;
    if (rc < 0) {
      throw Error(ErrorCode::BadFormat, "The regular expression \"" + shown(pattern_) + "\" of '" + where_ +
                                            "' could not be applied to this text: " + message_of(rc) + ".");
    }
    found(ends, rc);
    if (ends[1] <= at && ends[1] <= ends[0]) return;
    at = ends[1];
  }
}

void Regex::for_each(std::string_view text, const std::function<void(std::size_t, std::size_t)>& found) const {
  search(text, [&found](const std::size_t* ends, int) { found(ends[0], ends[1]); });
}

void Regex::for_each_groups(std::string_view text,
                            const std::function<void(const std::vector<std::string_view>&)>& found) const {
  std::uint32_t count = 0;
  pcre2_pattern_info(static_cast<const pcre2_code*>(code_.get()), PCRE2_INFO_CAPTURECOUNT, &count);
  search(text, [&](const std::size_t* ends, int set) {
    std::vector<std::string_view> groups(count + 1);
    for (std::size_t i = 0; i < static_cast<std::size_t>(set); ++i) {
      const std::size_t begin = ends[2 * i], end = ends[2 * i + 1];
      if (begin != PCRE2_UNSET && begin <= end) groups[i] = text.substr(begin, end - begin);
    }
    found(groups);
  });
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
