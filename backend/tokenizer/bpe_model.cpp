#include "backend/tokenizer/bpe_model.h"

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

BpeModel::BpeModel(const nlohmann::json& model, const std::string& where) {
  const auto affix = [&](const char* key) {
    return model.contains(key) && model[key].is_string() ? model[key].get<std::string>() : std::string();
  };
  subword_prefix_ = affix("continuing_subword_prefix");
  word_suffix_ = affix("end_of_word_suffix");
  if (model.contains("dropout") && model["dropout"].is_number() && model["dropout"].get<double>() != 0.0) {
    throw Error(ErrorCode::Unsupported, "'" + where + "' uses BPE dropout, which makes ids random; set it to null.");
  }
  const auto flag = [&](const char* key) {
    return model.contains(key) && model[key].is_boolean() && model[key].get<bool>();
  };
  byte_fallback_ = flag("byte_fallback");
  fuse_unk_ = flag("fuse_unk");
  ignore_merges_ = flag("ignore_merges");
  if (!model.contains("vocab") || !model["vocab"].is_object() || model["vocab"].empty())
    bad(where, "has no \"vocab\" in its model: expected an object of token to id.");
  read_vocabulary(model["vocab"], where);
  if (model.contains("unk_token") && model["unk_token"].is_string()) {
    const auto token = model["unk_token"].get<std::string>();
    const auto id = id_of(token);
    if (!id) bad(where, "names \"" + token + "\" as its unknown token, which is not in its vocabulary.");
    unk_id_ = *id;
  }
  if (byte_fallback_) find_byte_tokens(where);
  if (!model.contains("merges") || !model["merges"].is_array()) bad(where, "has no \"merges\" list in its model.");
  read_merges(model["merges"], where);
}

void BpeModel::read_vocabulary(const nlohmann::json& vocabulary, const std::string& where) {
  std::unordered_map<std::int32_t, const std::string*> seen;
  vocabulary_.reserve(vocabulary.size());
  for (const auto& [token, id] : vocabulary.items()) {
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
    const auto name = [&] {
      return "merge " + std::to_string(rank) + " (" +
             merge.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 120) + ")";
    };
    if (left.empty() || right.empty())
      bad(where, "has a " + name() + " that is neither \"left right\" nor [left, right].");
    if (right.size() < subword_prefix_.size())
      bad(where, "has a " + name() + " whose right side is shorter than the prefix \"" + subword_prefix_ + "\".");
    const std::string joined = left + right.substr(subword_prefix_.size());
    const auto a = vocabulary_.find(left), b = vocabulary_.find(right), whole = vocabulary_.find(joined);
    for (const auto& [it, token] : {std::pair{a, left}, std::pair{b, right}, std::pair{whole, joined}}) {
      if (it == vocabulary_.end())
        bad(where, "has a " + name() + " whose token \"" + token + "\" is not in its vocabulary.");
    }
    merges_.emplace(pair_key(a->second, b->second), Target{rank, whole->second});
    ++rank;
  }
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
    const std::string_view character = word.substr(i, length);
    std::string symbol(i == 0 ? "" : subword_prefix_);
    symbol += character;
    i += length;
    if (i >= word.size()) symbol += word_suffix_;
    const auto id = id_of(symbol);
    if (id) {
      symbols.push_back(*id);
    } else if (!byte_ids_.empty()) {
      for (const char byte : symbol) symbols.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
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
