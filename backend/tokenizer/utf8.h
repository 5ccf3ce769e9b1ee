#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qs::utf8 {

inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  ///< U+FFFD

enum class Sequence { Complete, Incomplete, Invalid };

/// What the bytes at `begin` are: one whole character, the beginning of one that the text cuts off, or neither.
/// Overlong forms, surrogates and values above U+10FFFF are Invalid.
/// @param length  of the whole character, or of what is there of it (1 when Invalid)
Sequence classify(std::string_view text, std::size_t begin, std::size_t& length);

/// Offset of the first byte that is not part of a valid character; npos when all are.
std::size_t first_invalid(std::string_view text);

/// `text` with every byte that is not part of a valid character as U+FFFD.
std::string replace_invalid(std::string_view text);

/// @param text  valid UTF-8
std::vector<char32_t> to_code_points(std::string_view text);
void append(std::string& text, char32_t code_point);

/// Length in bytes of the character that starts with `lead`, in valid UTF-8.
inline std::size_t length_of(unsigned char lead) { return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4; }

}  // namespace qs::utf8
