#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace qs {

/// Deeper than any file of a model is; what is nested without end would exhaust the stack of those who walk through it.
constexpr int kMaxJsonDepth = 64;

/// Parses JSON of a file. An object that names a key twice is refused: readers would not agree on its value.
/// @param where  file, for messages
/// @throws Error BadFormat (file, byte or key)
nlohmann::json parse_json(std::string_view text, const std::string& where, int max_depth = kMaxJsonDepth);

/// @throws Error as parse_json and MappedFile::open
nlohmann::json parse_json_file(const std::filesystem::path& path, int max_depth = kMaxJsonDepth);

}  // namespace qs
