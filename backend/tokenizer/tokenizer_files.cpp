#include "backend/tokenizer/tokenizer_files.h"

#include <nlohmann/json.hpp>

#include "backend/formats/mapped_file.h"
#include "backend/tokenizer/utf8.h"
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

/// "chat_template" is one text, or a list of {name, template}.
std::string template_of(const nlohmann::json& json) {
  if (!json.contains("chat_template")) return {};
  const auto& value = json["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  std::string first;
  if (!value.is_array()) return first;
  for (const auto& entry : value) {
    if (!entry.is_object() || !entry.contains("template") || !entry["template"].is_string()) continue;
    const auto text = entry["template"].get<std::string>();
    if (entry.contains("name") && entry["name"] == "default") return text;
    if (first.empty()) first = text;
  }
  return first;
}

void take_flag(const nlohmann::json& json, const char* key, std::optional<bool>& flag) {
  if (!flag && json.contains(key) && json[key].is_boolean()) flag = json[key].get<bool>();
}

}  // namespace

nlohmann::json read_json(const std::filesystem::path& path) { return parse_json(read_text_file(path), path.string()); }

nlohmann::json parse_json(std::string_view text, const std::string& where) {
  if (text.empty()) throw Error(ErrorCode::BadFormat, "'" + where + "' is empty; expected JSON.");
  const auto guard = [&](int depth, nlohmann::json::parse_event_t, nlohmann::json&) {
    if (depth > kMaxNesting) {
      throw Error(ErrorCode::BadFormat,
                  "'" + where + "' nests deeper than " + std::to_string(kMaxNesting) + " levels.");
    }
    return true;
  };
  try {
    return nlohmann::json::parse(text, guard);
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::BadFormat,
                "'" + where + "' is not valid JSON: it is damaged or cut off (" + std::to_string(text.size()) +
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
    take_flag(json, "add_bos_token", config.adds_bos);
    take_flag(json, "add_eos_token", config.adds_eos);
    if (config.bos_token.empty()) config.bos_token = token_name(json, "bos_token");
    if (config.eos_token.empty()) config.eos_token = token_name(json, "eos_token");
    if (config.unk_token.empty()) config.unk_token = token_name(json, "unk_token");
    if (config.tokenizer_class.empty()) config.tokenizer_class = token_name(json, "tokenizer_class");
    if (config.chat_template.empty()) config.chat_template = template_of(json);
  }
  const auto jinja = folder / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) {
    config.chat_template = read_text_file(jinja);
    if (utf8::first_invalid(config.chat_template) != std::string::npos)
      throw Error(ErrorCode::BadFormat, "'" + jinja.string() + "' is not UTF-8.");
  }
  return config;
}

}  // namespace qs
