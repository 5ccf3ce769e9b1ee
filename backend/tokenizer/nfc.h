#pragma once

#include <string>
#include <string_view>

namespace qs {

/// Unicode normalization form C (Unicode Standard Annex 15).
/// @param text  valid UTF-8
/// @throws Error InvalidArgument when it is not
std::string normalize_nfc(std::string_view text);

}  // namespace qs
