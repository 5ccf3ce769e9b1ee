#include "backend/tokenizer/bpe_model.h"

#include <cstdio>
#include <nlohmann/json.hpp>

#include "backend/tokenizer/bpe_merge.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kMaxVocabulary = 1 << 24;

[[noreturn]] void bad(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::BadFormat, "'" + where + "' " + what);
}

}  // namespace

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

BpeModel::BpeModel(const nlohmann::json& model, const std::string& where) {
  if (!model.is_object()) bad(where, "has no \"model\" object: it is not a tokenizer.json.");
  const std::string type = model.value("type", model.contains("merges") ? "BPE" : "");
  if (type != "BPE") {
    throw Error(ErrorCode::Unsupported,
                "'" + where + "' uses a tokenizer model of type \"" + type + "\"; only BPE can be read.");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (model.contains(key) && model[key].is_string() && !model[key].get<std::string>().empty()) {
      throw Error(ErrorCode::Unsupported, "'" + where + "' uses the BPE option \"" + key + "\", which cannot be read.");
    }
  }
  if (model.contains("dropout") && model["dropout"].is_number() && model["dropout"].get<double>() != 0.0) {
    throw Error(ErrorCode::Unsupported, "'" + where + "' uses BPE dropout, which makes ids random; set it to null.");
  }
  const auto flag = [&](const char* key) {
    return model.contains(key) && model[key].is_boolean() && model[key].get<bool>();
  };
  byte_fallback_ = flag("byte_fallback");
  fuse_unk_ = flag("fuse_unk");
  ignore_merges_ = flag("ignore_merges");

  if (!model.contains("vocab") || !model["vocab"].is_object() || model["vocab"].empty()) {
    bad(where, "has no \"vocab\" in its model: expected an object of token to id.");
  }
  std::unordered_map<std::int32_t, const std::string*> seen;
  for (const auto& [token, id] : model["vocab"].items()) {
    if (!id.is_number_integer() || id.get<std::int64_t>() < 0 || id.get<std::int64_t>() >= kMaxVocabulary) {
      bad(where, "gives token \"" + token + "\" the id " + id.dump() + "; expected a number from 0 to " +
                     std::to_string(kMaxVocabulary - 1) + ".");
    }
    const auto value = id.get<std::int32_t>();
    const auto entry = vocabulary_.emplace(token, value).first;
    const auto [other, fresh] = seen.emplace(value, &entry->first);
    if (!fresh)
      bad(where,
          "gives the id " + std::to_string(value) + " to both \"" + *other->second + "\" and \"" + token + "\".");
  }
  if (model.contains("unk_token") && model["unk_token"].is_string()) {
    const auto token = model["unk_token"].get<std::string>();
    const auto it = vocabulary_.find(token);
    if (it == vocabulary_.end())
      bad(where, "names \"" + token + "\" as its unknown token, which is not in its vocabulary.");
    unk_id_ = it->second;
  }
  if (byte_fallback_) {
    for (int byte = 0; byte < 256; ++byte) {
      char name[8];
      std::snprintf(name, sizeof name, "<0x%02X>", byte);
      const auto it = vocabulary_.find(name);
      if (it == vocabulary_.end())
        bad(where, std::string("asks for byte fallback, but its vocabulary lacks the token \"") + name + "\".");
      byte_ids_.push_back(it->second);
    }
  }
  if (!model.contains("merges") || !model["merges"].is_array()) bad(where, "has no \"merges\" list in its model.");
  read_merges(model["merges"], where);
}

void BpeModel::read_merges(const nlohmann::json& merges, const std::string& where) {
  std::int32_t rank = 0;
  for (const auto& merge : merges) {
    std::string left, right;
    if (merge.is_string()) {
      const auto& line = merge.get_ref<const std::string&>();
      const auto space = line.find(' ');
      if (space != std::string::npos) {
        left = line.substr(0, space);
        right = line.substr(space + 1);
      }
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    }
    const std::string name = "merge " + std::to_string(rank) + " (" +
                             merge.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + ")";
    if (left.empty() || right.empty())
      bad(where, "has a " + name + " that is neither \"left right\" nor [left, right].");
    const auto a = vocabulary_.find(left), b = vocabulary_.find(right), whole = vocabulary_.find(left + right);
    for (const auto& [it, token] : {std::pair{a, left}, std::pair{b, right}, std::pair{whole, left + right}}) {
      if (it == vocabulary_.end())
        bad(where, "has a " + name + " whose token \"" + token + "\" is not in its vocabulary.");
    }
    merges_.emplace(pair_key(a->second, b->second), Target{rank, whole->second});
    ++rank;
  }
}

std::optional<std::int32_t> BpeModel::id_of(const std::string& token) const {
  const auto it = vocabulary_.find(token);
  return it == vocabulary_.end() ? std::nullopt : std::optional(it->second);
}

void BpeModel::encode(std::string_view word, std::vector<std::int64_t>& ids) const {
  if (word.empty()) return;
  if (ignore_merges_) {
    if (const auto id = id_of(std::string(word))) {
      ids.push_back(*id);
      return;
    }
  }
  std::vector<std::int32_t> symbols;
  bool after_unk = false;
  for (std::size_t i = 0; i < word.size();) {
    const std::size_t length = utf8::length_of(static_cast<unsigned char>(word[i]));
    const std::string character(word.substr(i, length));
    i += length;
    const auto id = id_of(character);
    if (id) {
      symbols.push_back(*id);
    } else if (!byte_ids_.empty()) {
      for (const char byte : character) symbols.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    } else if (unk_id_ >= 0 && !(fuse_unk_ && after_unk)) {
      symbols.push_back(static_cast<std::int32_t>(unk_id_));
    }
    after_unk = !id && byte_ids_.empty();
  }
  const auto merged = merge_pairs(symbols, [this](std::int32_t left, std::int32_t right) -> std::optional<Merge> {
    const auto it = merges_.find(pair_key(left, right));
    if (it == merges_.end()) return std::nullopt;
    return Merge{static_cast<double>(it->second.rank), it->second.id};
  });
  ids.insert(ids.end(), merged.begin(), merged.end());
}

}  // namespace qs
