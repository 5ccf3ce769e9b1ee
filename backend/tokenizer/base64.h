#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace qs {

/// @return nullopt when the text holds a character that base64 does not have
std::optional<std::string> base64_decode(std::string_view text);

}  // namespace qs
