#include "backend/tokenizer/hf_post_processor.h"

#include "backend/tokenizer/hf_json.h"

namespace qs {
namespace {

using IdOf = std::function<std::optional<std::int64_t>(const std::string&)>;

std::int64_t known_id(const std::string& name, const IdOf& id_of, const std::string& where) {
  const auto id = id_of(name);
  if (!id) {
    throw Error(ErrorCode::BadFormat,
                "'" + where + "' puts \"" + name + "\" around texts, which is not in its vocabulary.");
  }
  return *id;
}

HfAffixes read_template(const nlohmann::json& json, const IdOf& id_of, const std::string& where) {
  HfAffixes affixes;
  bool behind = false;
  for (const auto& part : hf::list_of(json, "single", where)) {
    if (part.is_object() && part.contains("Sequence")) {
      behind = true;
      continue;
    }
    if (!part.is_object() || !part.contains("SpecialToken") || !part["SpecialToken"].is_object() ||
        !part["SpecialToken"].contains("id") || !part["SpecialToken"]["id"].is_string()) {
      throw Error(ErrorCode::BadFormat,
                  "'" + where + "': \"TemplateProcessing\" has a part that is neither a Sequence nor a SpecialToken.");
    }
    const std::string name = part["SpecialToken"]["id"].get<std::string>();
    auto& side = behind ? affixes.suffix : affixes.prefix;
    // special_tokens may give a name several tokens.
    const nlohmann::json* tokens = nullptr;
    if (json.contains("special_tokens") && json["special_tokens"].is_object() &&
        json["special_tokens"].contains(name)) {
      const auto& entry = json["special_tokens"][name];
      if (entry.is_object() && entry.contains("tokens") && entry["tokens"].is_array()) tokens = &entry["tokens"];
    }
    if (!tokens) {
      side.push_back(known_id(name, id_of, where));
      continue;
    }
    for (const auto& token : *tokens) {
      if (!token.is_string())
        throw Error(ErrorCode::BadFormat, "'" + where + "': the special token \"" + name + "\" lists no names.");
      side.push_back(known_id(token.get<std::string>(), id_of, where));
    }
  }
  return affixes;
}

/// "cls": [name, id]
std::int64_t pair_id(const nlohmann::json& json, const char* key, const IdOf& id_of, const std::string& where) {
  const auto& pair = hf::list_of(json, key, where);
  if (pair.size() != 2 || !pair[0].is_string())
    throw Error(ErrorCode::BadFormat, "'" + where + "': \"" + key + "\" is no [token, id].");
  return known_id(pair[0].get<std::string>(), id_of, where);
}

}  // namespace

HfAffixes read_hf_post_processor(const nlohmann::json& json, const IdOf& id_of, const std::string& where) {
  if (json.is_null()) return {};
  const std::string type = hf::type_of(json, "post-processor", where);
  if (type == "ByteLevel") return {};
  if (type == "Sequence") {
    HfAffixes all;
    for (const auto& step : hf::list_of(json, "processors", where)) {
      const HfAffixes inner = read_hf_post_processor(step, id_of, where);
      all.prefix.insert(all.prefix.begin(), inner.prefix.begin(), inner.prefix.end());
      all.suffix.insert(all.suffix.end(), inner.suffix.begin(), inner.suffix.end());
    }
    return all;
  }
  if (type == "TemplateProcessing") return read_template(json, id_of, where);
  if (type == "BertProcessing" || type == "RobertaProcessing")
    return {{pair_id(json, "cls", id_of, where)}, {pair_id(json, "sep", id_of, where)}};
  hf::unsupported("post-processor", type, "Sequence, TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing",
                  where);
}

}  // namespace qs
