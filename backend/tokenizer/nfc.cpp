#include "backend/tokenizer/nfc.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "backend/types/error.h"

namespace qs {

std::string normalize_nfc(std::string_view text) {
  utf8proc_uint8_t* normalized = nullptr;
  const utf8proc_ssize_t length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &normalized, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(normalized, &std::free);
  if (length < 0) {
    throw Error(ErrorCode::InvalidArgument, "The text cannot be normalized to NFC; UTF-8 was expected.",
                utf8proc_errmsg(length));
  }
  return {reinterpret_cast<const char*>(normalized), static_cast<std::size_t>(length)};
}

}  // namespace qs
