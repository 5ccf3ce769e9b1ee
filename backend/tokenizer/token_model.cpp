#include "backend/tokenizer/token_model.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "backend/tokenizer/bpe_model.h"
#include "backend/tokenizer/unigram_model.h"
#include "backend/types/error.h"

namespace qs {

std::optional<std::int32_t> TokenModel::id_of(const std::string& token) const {
  const auto it = vocabulary_.find(token);
  return it == vocabulary_.end() ? std::nullopt : std::optional(it->second);
}

void TokenModel::find_byte_tokens(const std::string& where) {
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", byte);
    const auto id = id_of(name);
    if (!id) {
      throw Error(ErrorCode::BadFormat,
                  "'" + where + "' asks for byte fallback, but its vocabulary lacks the token \"" + name + "\".");
    }
    byte_ids_.push_back(*id);
  }
}

std::optional<unsigned char> byte_token_value(std::string_view token) {
  if (token.size() != 6 || token.substr(0, 3) != "<0x" || token[5] != '>') return std::nullopt;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) return std::nullopt;
    value = value * 16 + digit;
  }
  return static_cast<unsigned char>(value);
}

std::unique_ptr<const TokenModel> make_token_model(const nlohmann::json& model, const std::string& where) {
  if (!model.is_object())
    throw Error(ErrorCode::BadFormat, "'" + where + "' has no \"model\" object: it is not a tokenizer.json.");
  std::string type;
  if (model.contains("type") && model["type"].is_string()) type = model["type"].get<std::string>();
  // Files of the first versions name no type.
  if (type.empty() && model.contains("merges")) type = "BPE";
  if (type.empty() && model.contains("vocab") && model["vocab"].is_array()) type = "Unigram";
  if (type == "BPE") return std::make_unique<BpeModel>(model, where);
  if (type == "Unigram") return std::make_unique<UnigramModel>(model, where);
  throw Error(ErrorCode::Unsupported,
              "'" + where + "' uses a tokenizer model of type \"" + type + "\"; BPE and Unigram can be read.");
}

}  // namespace qs
