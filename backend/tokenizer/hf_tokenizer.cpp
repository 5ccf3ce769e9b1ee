#include "backend/tokenizer/hf_tokenizer.h"

#include <map>
#include <optional>
#include <set>

#include "backend/tokenizer/added_tokens.h"
#include "backend/tokenizer/hf_decoder.h"
#include "backend/tokenizer/hf_json.h"
#include "backend/tokenizer/hf_normalizer.h"
#include "backend/tokenizer/hf_post_processor.h"
#include "backend/tokenizer/hf_pre_tokenizer.h"
#include "backend/tokenizer/token_model.h"
#include "backend/tokenizer/utf8.h"

namespace qs {
namespace {

// Ids may leave gaps, as padded vocabularies do, but no file makes us hold a list that is mostly holes.
constexpr std::int64_t kMaxGap = 1 << 20;

class HfTokenizer final : public Tokenizer {
 public:
  HfTokenizer(const nlohmann::json& json, const TokenizerConfig& config, const std::string& where, std::string format)
      : format_(std::move(format)),
        model_(make_token_model(part(json, "model"), where)),
        normalizer_(make_hf_normalizer(part(json, "normalizer"), where)),
        pre_tokenizer_(make_hf_pre_tokenizer(part(json, "pre_tokenizer"), where)),
        decoder_(make_hf_decoder(part(json, "decoder"), where)) {
    read_tokens(json, where);
    affixes_ = read_hf_post_processor(
        part(json, "post_processor"),
        [this](const std::string& name) {
          const auto it = ids_.find(name);
          return it == ids_.end() ? std::nullopt : std::optional(it->second);
        },
        where);
    if (!config.bos_token.empty()) bos_id_ = id_of(config.bos_token);
    if (bos_id_ < 0 && !affixes_.prefix.empty()) bos_id_ = affixes_.prefix.front();
    for (const char* name : {"<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"}) {
      if (bos_id_ < 0) bos_id_ = id_of(name);
    }
    if (!config.eos_token.empty()) eos_id_ = id_of(config.eos_token);
    for (const char* name : {"</s>", "<|end_of_text|>", "<|im_end|>", "<eos>", "<|endoftext|>"}) {
      if (eos_id_ < 0) eos_id_ = id_of(name);
    }
    if (config.adds_bos) affixes_.prefix.clear();
    if (config.adds_bos.value_or(false) && bos_id_ >= 0) affixes_.prefix = {bos_id_};
    if (config.adds_eos) affixes_.suffix.clear();
    if (config.adds_eos.value_or(false) && eos_id_ >= 0) affixes_.suffix = {eos_id_};
    chat_template_ = config.chat_template;
  }

  std::string kind() const override { return format_ + " " + model_->name(); }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t bos_id() const override { return bos_id_; }
  std::int64_t eos_id() const override { return eos_id_; }
  bool adds_bos() const override { return !affixes_.prefix.empty(); }
  std::vector<std::int64_t> prefix_ids() const override { return affixes_.prefix; }
  std::vector<std::int64_t> suffix_ids() const override { return affixes_.suffix; }

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    check_text(text);
    std::vector<std::int64_t> ids;
    bool at_start = options.text_start;
    for (const TextSegment& segment : raw_finder_->split(text, options.special_tokens)) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
        at_start = false;
        continue;
      }
      std::string normal(segment.text);
      if (normalizer_) normal = normalizer_->apply(std::move(normal));
      for (const TextSegment& piece : normalized_finder_->split(normal, options.special_tokens)) {
        if (piece.id >= 0) {
          ids.push_back(piece.id);
        } else {
          encode_plain(std::string(piece.text), at_start, ids);
        }
        at_start = false;
      }
      at_start = false;
    }
    return ids;
  }

  std::string decode(const std::vector<std::int64_t>& ids) const override {
    std::vector<std::string> texts;
    for (const std::int64_t id : ids) {
      check_id(id);
      if (!special_.count(id)) texts.push_back(tokens_[static_cast<std::size_t>(id)]);
    }
    if (texts.empty()) return {};
    if (decoder_) texts = decoder_->apply(std::move(texts));
    std::string text;
    for (const auto& piece : texts) text += piece;
    return text;
  }

  std::string token_bytes(std::int64_t id) const override {
    check_id(id);
    if (special_.count(id)) return {};
    const std::string& token = tokens_[static_cast<std::size_t>(id)];
    return decoder_ ? decoder_->inside(token) : token;
  }

  std::string token_text(std::int64_t id) const override {
    check_id(id);
    const std::string& token = tokens_[static_cast<std::size_t>(id)];
    if (special_.count(id) || byte_token_value(token)) return token;
    const std::string bytes = token_bytes(id);
    return utf8::first_invalid(bytes) == std::string::npos ? bytes : token;
  }

  TokenKind token_kind(std::int64_t id) const override {
    check_id(id);
    if (id == model_->unk_id() && !model_->byte_fallback()) return TokenKind::Unknown;
    if (special_.count(id)) return TokenKind::Special;
    return model_->byte_fallback() && byte_token_value(tokens_[static_cast<std::size_t>(id)]) ? TokenKind::Byte
                                                                                              : TokenKind::Normal;
  }

 private:
  static const nlohmann::json& part(const nlohmann::json& json, const char* key) {
    static const nlohmann::json kNull;
    return json.contains(key) ? json[key] : kNull;
  }

  std::int64_t id_of(const std::string& name) const {
    const auto it = ids_.find(name);
    return it == ids_.end() ? -1 : it->second;
  }

  void encode_plain(const std::string& text, bool at_start, std::vector<std::int64_t>& ids) const {
    if (!pre_tokenizer_) {
      model_->encode(text, ids);
      return;
    }
    std::vector<std::string> words;
    pre_tokenizer_->apply(text, at_start, words);
    for (const auto& word : words) model_->encode(word, ids);
  }

  void put_token(std::int64_t id, const std::string& token) {
    tokens_[static_cast<std::size_t>(id)] = token;
    ids_[token] = id;
  }

  void read_tokens(const nlohmann::json& json, const std::string& where) {
    const std::vector<AddedToken> added = read_added_tokens(part(json, "added_tokens"), where);
    std::int64_t highest = -1;
    for (const auto& [token, id] : model_->vocabulary()) highest = std::max<std::int64_t>(highest, id);
    for (const AddedToken& token : added) highest = std::max(highest, token.id);
    const auto count = static_cast<std::int64_t>(model_->vocabulary().size() + added.size());
    if (highest >= count + kMaxGap) {
      throw Error(ErrorCode::BadFormat, "'" + where + "' has " + std::to_string(count) + " tokens but uses the id " +
                                            std::to_string(highest) + ". The file is damaged.");
    }
    tokens_.resize(static_cast<std::size_t>(highest) + 1);
    for (const auto& [token, id] : model_->vocabulary()) put_token(id, token);
    std::vector<AddedToken> raw, normalized;
    std::vector<SpecialToken> named;
    for (AddedToken token : added) {
      put_token(token.id, token.content);
      named.push_back({token.content, token.id, token.strip_left, token.strip_right});
      if (token.special) special_.insert(token.id);
      if (token.normalized) {
        if (normalizer_) token.content = normalizer_->apply(token.content);
        normalized.push_back(std::move(token));
      } else {
        raw.push_back(std::move(token));
      }
    }
    set_special_tokens(std::move(named));
    if (model_->unk_id() >= 0) special_.insert(model_->unk_id());
    raw_finder_.emplace(std::move(raw));
    normalized_finder_.emplace(std::move(normalized));
  }

  static std::vector<AddedToken> read_added_tokens(const nlohmann::json& list, const std::string& where) {
    std::vector<AddedToken> tokens;
    if (!list.is_null() && !list.is_array())
      throw Error(ErrorCode::BadFormat, "'" + where + "': \"added_tokens\" is no list.");
    for (const auto& entry : list) {
      if (!entry.is_object() || !entry.contains("id") || !entry["id"].is_number_integer() ||
          !entry.contains("content") || !entry["content"].is_string() || entry["id"].get<std::int64_t>() < 0 ||
          entry["id"].get<std::int64_t>() >= 1 << 24) {
        throw Error(ErrorCode::BadFormat,
                    "'" + where + "' has an added token without a usable \"id\" and \"content\": " +
                        entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 120) + ".");
      }
      AddedToken token;
      token.id = entry["id"].get<std::int64_t>();
      token.content = entry["content"].get<std::string>();
      token.special = hf::flag_of(entry, "special", false);
      token.normalized = hf::flag_of(entry, "normalized", false);
      token.strip_left = hf::flag_of(entry, "lstrip", false);
      token.strip_right = hf::flag_of(entry, "rstrip", false);
      token.single_word = hf::flag_of(entry, "single_word", false);
      tokens.push_back(std::move(token));
    }
    return tokens;
  }

  std::string format_;
  std::unique_ptr<const TokenModel> model_;
  std::shared_ptr<const HfNormalizer> normalizer_;
  std::shared_ptr<const HfPreTokenizer> pre_tokenizer_;
  std::shared_ptr<const HfDecoder> decoder_;
  std::vector<std::string> tokens_;  ///< by id
  std::map<std::string, std::int64_t> ids_;
  std::set<std::int64_t> special_;
  std::optional<AddedTokenFinder> raw_finder_, normalized_finder_;
  HfAffixes affixes_;
  std::int64_t bos_id_ = -1, eos_id_ = -1;
};

}  // namespace

std::shared_ptr<const Tokenizer> make_hf_tokenizer(const nlohmann::json& json, const TokenizerConfig& config,
                                                   const std::string& where, const std::string& format) {
  if (!json.is_object() || !json.contains("model"))
    throw Error(ErrorCode::BadFormat, "'" + where + "' has no \"model\": it is not a tokenizer.json.");
  try {
    return std::make_shared<HfTokenizer>(json, config, where, format);
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::BadFormat, "'" + where + "' does not have the form of a tokenizer.json.", e.what());
  }
}

std::shared_ptr<const Tokenizer> load_hf_tokenizer(const std::filesystem::path& tokenizer_json) {
  return make_hf_tokenizer(read_json(tokenizer_json), read_tokenizer_config(tokenizer_json.parent_path()),
                           tokenizer_json.string());
}

}  // namespace qs
