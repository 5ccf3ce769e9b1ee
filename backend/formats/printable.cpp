#include "backend/formats/printable.h"

namespace qs {

std::string printable(std::string_view name, std::size_t limit) {
  constexpr const char* kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : name.substr(0, limit)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f) {
      text += c;
    } else {
      text += "\\x";
      text += kDigits[byte >> 4];
      text += kDigits[byte & 15];
    }
  }
  return name.size() > limit ? text + "..." : text;
}

}  // namespace qs
