#pragma once

#include <functional>
#include <string>
#include <string_view>

namespace qs::unicode {

/// Normalization forms of Unicode Standard Annex 15.
enum class Form { Nfc, Nfd, Nfkc, Nfkd };

/// @param text  valid UTF-8
/// @throws Error InvalidArgument when it is not
std::string normalize(std::string_view text, Form form);

/// Full lower case of each character for itself (no final sigma), as Rust's char::to_lowercase gives it.
std::string to_lower(std::string_view text);
/// The first character in title case, the rest in lower case, as Python's str.capitalize.
std::string capitalize(std::string_view text);
/// Without combining marks (category M).
std::string without_marks(std::string_view text);

bool is_space(char32_t c);        ///< property White_Space
bool is_word(char32_t c);         ///< \w: letters, marks, decimal digits, connectors
bool is_punctuation(char32_t c);  ///< ASCII punctuation and category P

/// Calls `found(begin, end)` with the bytes of each extended grapheme cluster (Unicode Standard Annex 29) in order.
void for_each_grapheme(std::string_view text, const std::function<void(std::size_t begin, std::size_t end)>& found);

}  // namespace qs::unicode
