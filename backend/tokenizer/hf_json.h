#pragma once

#include <nlohmann/json.hpp>
#include <string>

#include "backend/tokenizer/regex.h"
#include "backend/types/error.h"

namespace qs::hf {

inline std::string type_of(const nlohmann::json& json, const std::string& part, const std::string& where) {
  if (!json.is_object() || !json.contains("type") || !json["type"].is_string()) {
    throw Error(ErrorCode::BadFormat,
                "'" + where + "' has a " + part + " without a \"type\": " +
                    json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80) + ".");
  }
  return json["type"].get<std::string>();
}

inline std::string text_of(const nlohmann::json& json, const char* key, const std::string& where) {
  if (!json.contains(key) || !json[key].is_string()) {
    throw Error(ErrorCode::BadFormat,
                "'" + where + "': \"" + json.value("type", "") + "\" needs the text \"" + key + "\".");
  }
  return json[key].get<std::string>();
}

inline bool flag_of(const nlohmann::json& json, const char* key, bool fallback) {
  return json.contains(key) && json[key].is_boolean() ? json[key].get<bool>() : fallback;
}

inline const nlohmann::json& list_of(const nlohmann::json& json, const char* key, const std::string& where) {
  if (!json.contains(key) || !json[key].is_array()) {
    throw Error(ErrorCode::BadFormat,
                "'" + where + "': \"" + json.value("type", "") + "\" needs the list \"" + key + "\".");
  }
  return json[key];
}

/// A "pattern": {"String": ...} or {"Regex": ...}.
inline Regex pattern_of(const nlohmann::json& json, const std::string& where) {
  if (json.contains("pattern") && json["pattern"].is_object()) {
    const auto& pattern = json["pattern"];
    if (pattern.contains("String") && pattern["String"].is_string()) {
      return Regex(Regex::escape(pattern["String"].get<std::string>()), where);
    }
    if (pattern.contains("Regex") && pattern["Regex"].is_string())
      return Regex(pattern["Regex"].get<std::string>(), where);
  }
  throw Error(ErrorCode::BadFormat, "'" + where + "': \"" + json.value("type", "") +
                                        "\" needs a \"pattern\" of the form {\"String\": ...} or {\"Regex\": ...}.");
}

[[noreturn]] inline void unsupported(const std::string& part, const std::string& type, const std::string& known,
                                     const std::string& where) {
  throw Error(ErrorCode::Unsupported,
              "'" + where + "' uses the " + part + " \"" + type + "\", which cannot be read. Known are " + known + ".");
}

inline constexpr std::string_view kMetaspace = "\xE2\x96\x81";  ///< U+2581, SentencePiece's visible space

}  // namespace qs::hf
