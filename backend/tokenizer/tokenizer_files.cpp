#include "backend/tokenizer/tokenizer_files.h"

#include <nlohmann/json.hpp>

#include "backend/formats/mapped_file.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr int kMaxNesting = 64;

std::string token_name(const nlohmann::json& json, const char* key) {
  if (!json.contains(key)) return {};
  const auto& value = json[key];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string())
    return value["content"].get<std::string>();
  return {};
}

}  // namespace

nlohmann::json read_json(const std::filesystem::path& path) {
  const std::string text = read_text_file(path);
  if (text.empty()) throw Error(ErrorCode::BadFormat, "'" + path.string() + "' is empty; expected JSON.");
  const auto guard = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxNesting) {
      throw Error(ErrorCode::BadFormat,
                  "'" + path.string() + "' nests deeper than " + std::to_string(kMaxNesting) + " levels.");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, guard);
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::BadFormat,
                "'" + path.string() + "' is not valid JSON: it is damaged or cut off (" + std::to_string(text.size()) +
                    " bytes). Fetch it again.",
                e.what());
  }
}

TokenizerConfig read_tokenizer_config(const std::filesystem::path& folder) {
  TokenizerConfig config;
  for (const char* name : {"tokenizer_config.json", "special_tokens_map.json"}) {
    const auto path = folder / name;
    if (!std::filesystem::exists(path)) continue;
    const nlohmann::json json = read_json(path);
    if (!json.is_object()) throw Error(ErrorCode::BadFormat, "'" + path.string() + "' holds no JSON object.");
    if (!config.adds_bos && json.contains("add_bos_token") && json["add_bos_token"].is_boolean()) {
      config.adds_bos = json["add_bos_token"].get<bool>();
    }
    if (config.bos_token.empty()) config.bos_token = token_name(json, "bos_token");
    if (config.eos_token.empty()) config.eos_token = token_name(json, "eos_token");
  }
  return config;
}

}  // namespace qs
