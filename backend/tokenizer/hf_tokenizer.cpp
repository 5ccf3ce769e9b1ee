#include "backend/tokenizer/hf_tokenizer.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "backend/tokenizer/bpe_model.h"
#include "backend/tokenizer/hf_decoder.h"
#include "backend/tokenizer/hf_json.h"
#include "backend/tokenizer/hf_normalizer.h"
#include "backend/tokenizer/hf_pre_tokenizer.h"
#include "backend/tokenizer/tokenizer_files.h"
#include "backend/tokenizer/utf8.h"

namespace qs {
namespace {

struct AddedToken {
  std::int64_t id = 0;
  std::string content;
  bool special = false, normalized = false, strip_left = false, strip_right = false;
};

struct Segment {
  std::string text;
  std::int64_t id = -1;  ///< of the added token, or -1 for plain text
};

/// Finds added tokens in a text: leftmost, the longest of those.
class AddedTokenFinder {
 public:
  AddedTokenFinder(std::vector<AddedToken> tokens, const std::string& where) {
    std::stable_sort(tokens.begin(), tokens.end(),
                     [](const auto& a, const auto& b) { return a.content.size() > b.content.size(); });
    std::string pattern;
    for (const AddedToken& token : tokens) {
      if (token.content.empty()) continue;
      if (!pattern.empty()) pattern += '|';
      pattern += (token.strip_left ? "\\s*" : "") + Regex::escape(token.content) + (token.strip_right ? "\\s*" : "");
      ids_.emplace(token.content, token.id);
    }
    if (!pattern.empty()) regex_.emplace(pattern, where);
  }

  void split(const std::string& text, std::vector<Segment>& segments) const {
    std::size_t done = 0;
    if (regex_) {
      regex_->for_each(text, [&](std::size_t begin, std::size_t end) {
        if (begin > done) segments.push_back({text.substr(done, begin - done)});
        segments.push_back({{}, id_of(text.substr(begin, end - begin))});
        done = end;
      });
    }
    if (done < text.size()) segments.push_back({text.substr(done)});
  }

 private:
  std::int64_t id_of(std::string match) const {
    if (const auto it = ids_.find(match); it != ids_.end()) return it->second;
    const auto not_space = [](char c) { return !std::isspace(static_cast<unsigned char>(c)); };
    match.erase(match.begin(), std::find_if(match.begin(), match.end(), not_space));
    match.erase(std::find_if(match.rbegin(), match.rend(), not_space).base(), match.end());
    const auto it = ids_.find(match);
    return it == ids_.end() ? -1 : it->second;
  }
  std::map<std::string, std::int64_t> ids_;
  std::optional<Regex> regex_;
};

class HfTokenizer final : public Tokenizer {
 public:
  HfTokenizer(const nlohmann::json& json, const TokenizerConfig& config, const std::string& where)
      : model_(part(json, "model"), where),
        normalizer_(make_hf_normalizer(part(json, "normalizer"), where)),
        pre_tokenizer_(make_hf_pre_tokenizer(part(json, "pre_tokenizer"), where)),
        decoder_(make_hf_decoder(part(json, "decoder"), where)) {
    read_tokens(json, where);
    read_post_processor(part(json, "post_processor"), where);
    if (!config.bos_token.empty()) bos_id_ = id_of(config.bos_token);
    if (bos_id_ < 0) bos_id_ = template_bos_;
    for (const char* name : {"<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>"}) {
      if (bos_id_ < 0) bos_id_ = id_of(name);
    }
    if (!config.eos_token.empty()) eos_id_ = id_of(config.eos_token);
    for (const char* name : {"</s>", "<|end_of_text|>", "<|im_end|>", "<eos>", "<|endoftext|>"}) {
      if (eos_id_ < 0) eos_id_ = id_of(name);
    }
    adds_bos_ = config.adds_bos.value_or(template_bos_ >= 0) && bos_id_ >= 0;
  }

  std::string kind() const override { return "tokenizer.json BPE"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t bos_id() const override { return bos_id_; }
  std::int64_t eos_id() const override { return eos_id_; }
  bool adds_bos() const override { return adds_bos_; }

  std::vector<std::int64_t> encode(std::string_view text) const override {
    if (const auto at = utf8::first_invalid(text); at != std::string_view::npos) {
      throw Error(ErrorCode::InvalidArgument, "The text is not UTF-8: byte " + std::to_string(at) +
                                                  " does not belong to a character. Convert the text to UTF-8.");
    }
    std::vector<std::int64_t> ids;
    std::vector<Segment> raw;
    raw_finder_->split(std::string(text), raw);
    bool at_start = true;
    for (const Segment& segment : raw) {
      if (segment.id >= 0) {
        ids.push_back(segment.id);
      } else {
        std::vector<Segment> inner;
        normalized_finder_->split(normalizer_ ? normalizer_->apply(segment.text) : segment.text, inner);
        for (const Segment& piece : inner) {
          if (piece.id >= 0) {
            ids.push_back(piece.id);
          } else {
            encode_plain(piece.text, at_start, ids);
          }
          at_start = false;
        }
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

 private:
  static const nlohmann::json& part(const nlohmann::json& json, const char* key) {
    static const nlohmann::json kNull;
    return json.contains(key) ? json[key] : kNull;
  }

  std::int64_t id_of(const std::string& name) const {
    const auto it = ids_.find(name);
    return it == ids_.end() ? -1 : it->second;
  }

  void check_id(std::int64_t id) const {
    if (id < 0 || id >= vocab_size()) {
      throw Error(ErrorCode::InvalidArgument, "Token id " + std::to_string(id) + " is outside the vocabulary of " +
                                                  std::to_string(vocab_size()) + " tokens.");
    }
  }

  void encode_plain(const std::string& text, bool at_start, std::vector<std::int64_t>& ids) const {
    if (!pre_tokenizer_) {
      model_.encode(text, ids);
      return;
    }
    std::vector<std::string> words;
    pre_tokenizer_->apply(text, at_start, words);
    for (const auto& word : words) model_.encode(word, ids);
  }

  void put_token(std::int64_t id, const std::string& token) {
    if (id >= vocab_size()) tokens_.resize(static_cast<std::size_t>(id) + 1);
    tokens_[static_cast<std::size_t>(id)] = token;
    ids_[token] = id;
  }

  void read_tokens(const nlohmann::json& json, const std::string& where) {
    for (const auto& [token, id] : model_.vocabulary()) put_token(id, token);
    std::vector<AddedToken> raw, normalized;
    const auto& list = part(json, "added_tokens");
    if (!list.is_null() && !list.is_array())
      throw Error(ErrorCode::BadFormat, "'" + where + "': \"added_tokens\" is no list.");
    for (const auto& entry : list) {
      if (!entry.is_object() || !entry.contains("id") || !entry["id"].is_number_integer() ||
          !entry.contains("content") || !entry["content"].is_string() || entry["id"].get<std::int64_t>() < 0 ||
          entry["id"].get<std::int64_t>() >= 1 << 24) {
        throw Error(ErrorCode::BadFormat, "'" + where +
                                              "' has an added token without a usable \"id\" and \"content\": " +
                                              entry.dump().substr(0, 120) + ".");
      }
      if (hf::flag_of(entry, "single_word", false)) {
        throw Error(ErrorCode::Unsupported,
                    "'" + where + "' uses \"single_word\" for an added token, which cannot be read.");
      }
      AddedToken token{entry["id"].get<std::int64_t>(),      entry["content"].get<std::string>(),
                       hf::flag_of(entry, "special", false), hf::flag_of(entry, "normalized", false),
                       hf::flag_of(entry, "lstrip", false),  hf::flag_of(entry, "rstrip", false)};
      put_token(token.id, token.content);
      if (token.special) special_.insert(token.id);
      if (token.normalized) {
        if (normalizer_) token.content = normalizer_->apply(token.content);
        normalized.push_back(token);
      } else {
        raw.push_back(token);
      }
    }
    if (model_.unk_id() >= 0) special_.insert(model_.unk_id());
    raw_finder_.emplace(std::move(raw), where);
    normalized_finder_.emplace(std::move(normalized), where);
  }

  void read_post_processor(const nlohmann::json& json, const std::string& where) {
    if (json.is_null()) return;
    const std::string type = hf::type_of(json, "post-processor", where);
    if (type == "ByteLevel") return;
    if (type == "Sequence") {
      for (const auto& step : hf::list_of(json, "processors", where)) read_post_processor(step, where);
      return;
    }
    if (type != "TemplateProcessing")
      hf::unsupported("post-processor", type, "Sequence, TemplateProcessing, ByteLevel", where);
    const auto& single = hf::list_of(json, "single", where);
    if (single.empty() || !single[0].is_object() || !single[0].contains("SpecialToken")) return;
    const auto& special = single[0]["SpecialToken"];
    const std::string name = special.is_object() && special.contains("id") && special["id"].is_string()
                                 ? special["id"].get<std::string>()
                                 : "";
    template_bos_ = id_of(name);
    if (template_bos_ < 0) {
      throw Error(ErrorCode::BadFormat,
                  "'" + where + "' starts texts with \"" + name + "\", which is not in its vocabulary.");
    }
  }

  BpeModel model_;
  std::shared_ptr<const HfNormalizer> normalizer_;
  std::shared_ptr<const HfPreTokenizer> pre_tokenizer_;
  std::shared_ptr<const HfDecoder> decoder_;
  std::vector<std::string> tokens_;  ///< by id
  std::map<std::string, std::int64_t> ids_;
  std::set<std::int64_t> special_;
  std::optional<AddedTokenFinder> raw_finder_, normalized_finder_;
  std::int64_t bos_id_ = -1, eos_id_ = -1, template_bos_ = -1;
  bool adds_bos_ = false;
};

}  // namespace

std::shared_ptr<const Tokenizer> load_hf_tokenizer(const std::filesystem::path& tokenizer_json) {
  const nlohmann::json json = read_json(tokenizer_json);
  if (!json.is_object() || !json.contains("model")) {
    throw Error(ErrorCode::BadFormat,
                "'" + tokenizer_json.string() + "' has no \"model\": it is not a tokenizer.json.");
  }
  try {
    return std::make_shared<HfTokenizer>(json, read_tokenizer_config(tokenizer_json.parent_path()),
                                         tokenizer_json.string());
  } catch (const nlohmann::json::exception& e) {
    throw Error(ErrorCode::BadFormat, "'" + tokenizer_json.string() + "' does not have the form of a tokenizer.json.",
                e.what());
  }
}

}  // namespace qs
