#include "backend/tokenizer/hf_decoder.h"

#include "backend/tokenizer/hf_json.h"
#include "backend/tokenizer/hf_pre_tokenizer.h"
#include "backend/tokenizer/token_model.h"
#include "backend/tokenizer/utf8.h"

namespace qs {
namespace {

using Tokens = std::vector<std::string>;

class Sequence final : public HfDecoder {
 public:
  explicit Sequence(std::vector<std::shared_ptr<const HfDecoder>> steps) : steps_(std::move(steps)) {}
  Tokens apply(Tokens tokens) const override {
    for (const auto& step : steps_) tokens = step->apply(std::move(tokens));
    return tokens;
  }
  std::string inside(std::string token) const override {
    // Bytes are final: a later Replace must not see them as text.
    for (const auto& step : steps_) {
      std::string next = step->inside(token);
      if (byte_token_value(token) && next.size() == 1) return next;
      token = std::move(next);
    }
    return token;
  }

 private:
  std::vector<std::shared_ptr<const HfDecoder>> steps_;
};

class Replace final : public HfDecoder {
 public:
  Replace(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  Tokens apply(Tokens tokens) const override {
    for (auto& token : tokens) token = inside(std::move(token));
    return tokens;
  }
  std::string inside(std::string token) const override { return pattern_.replace_all(token, content_); }

 private:
  Regex pattern_;
  std::string content_;
};

class ByteFallback final : public HfDecoder {
 public:
  Tokens apply(Tokens tokens) const override {
    Tokens result;
    std::string run;
    const auto flush = [&] {
      if (!run.empty()) result.push_back(utf8::replace_invalid(run));
      run.clear();
    };
    for (auto& token : tokens) {
      if (const auto byte = byte_token_value(token)) {
        run.push_back(static_cast<char>(*byte));
      } else {
        flush();
        result.push_back(std::move(token));
      }
    }
    flush();
    return result;
  }
  std::string inside(std::string token) const override {
    const auto byte = byte_token_value(token);
    return byte ? std::string(1, static_cast<char>(*byte)) : token;
  }
};

class Fuse final : public HfDecoder {
 public:
  Tokens apply(Tokens tokens) const override {
    std::string all;
    for (const auto& token : tokens) all += token;
    return {std::move(all)};
  }
};

class Strip final : public HfDecoder {
 public:
  Strip(std::string content, std::int64_t start, std::int64_t stop)
      : content_(std::move(content)), start_(start), stop_(stop) {}
  Tokens apply(Tokens tokens) const override {
    for (auto& token : tokens) {
      std::size_t begin = 0, end = token.size();
      for (std::int64_t i = 0; i < start_ && token.compare(begin, content_.size(), content_) == 0 && begin < end; ++i)
        begin += content_.size();
      for (std::int64_t i = 0; i < stop_ && end >= begin + content_.size() &&
                               token.compare(end - content_.size(), content_.size(), content_) == 0;
           ++i) {
        end -= content_.size();
      }
      token = token.substr(begin, end - begin);
    }
    return tokens;
  }

 private:
  std::string content_;
  std::int64_t start_, stop_;
};

class ByteLevel final : public HfDecoder {
 public:
  Tokens apply(Tokens tokens) const override {
    std::string bytes;
    for (const auto& token : tokens) bytes += byte_level_decode(token);
    return {utf8::replace_invalid(bytes)};
  }
  std::string inside(std::string token) const override { return byte_level_decode(token); }
};

class Metaspace final : public HfDecoder {
 public:
  Metaspace(const std::string& replacement, bool strip_first, const std::string& where)
      : pattern_(Regex::escape(replacement), where), strip_first_(strip_first) {}
  Tokens apply(Tokens tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      tokens[i] = inside(std::move(tokens[i]));
      if (i == 0 && strip_first_ && !tokens[i].empty() && tokens[i][0] == ' ') tokens[i].erase(0, 1);
    }
    return tokens;
  }
  std::string inside(std::string token) const override { return pattern_.replace_all(token, " "); }

 private:
  Regex pattern_;
  bool strip_first_;
};

/// Words end with a suffix, which becomes a space between them.
class WordEnd final : public HfDecoder {
 public:
  WordEnd(const std::string& suffix, const std::string& where) : pattern_(Regex::escape(suffix), where) {}
  Tokens apply(Tokens tokens) const override {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = pattern_.replace_all(tokens[i], i + 1 < tokens.size() ? " " : "");
    return tokens;
  }
  std::string inside(std::string token) const override { return pattern_.replace_all(token, " "); }

 private:
  Regex pattern_;
};

std::int64_t count_of(const nlohmann::json& json, const char* key, const std::string& where) {
  if (!json.contains(key) || !json[key].is_number_integer() || json[key].get<std::int64_t>() < 0) {
    throw Error(ErrorCode::BadFormat, "'" + where + "': \"Strip\" needs the count \"" + key + "\".");
  }
  return json[key].get<std::int64_t>();
}

}  // namespace

std::shared_ptr<const HfDecoder> make_hf_decoder(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) return nullptr;
  const std::string type = hf::type_of(json, "decoder", where);
  if (type == "Sequence") {
    std::vector<std::shared_ptr<const HfDecoder>> steps;
    for (const auto& step : hf::list_of(json, "decoders", where)) {
      if (auto made = make_hf_decoder(step, where)) steps.push_back(std::move(made));
    }
    return std::make_shared<Sequence>(std::move(steps));
  }
  if (type == "Replace")
    return std::make_shared<Replace>(hf::pattern_of(json, where), hf::text_of(json, "content", where));
  if (type == "ByteFallback") return std::make_shared<ByteFallback>();
  if (type == "Fuse") return std::make_shared<Fuse>();
  if (type == "Strip") {
    const std::string content = hf::text_of(json, "content", where);
    if (content.empty())
      throw Error(ErrorCode::BadFormat, "'" + where + "': the content of the decoder \"Strip\" is empty.");
    return std::make_shared<Strip>(content, count_of(json, "start", where), count_of(json, "stop", where));
  }
  if (type == "ByteLevel") return std::make_shared<ByteLevel>();
  if (type == "Metaspace") {
    const std::string replacement =
        json.contains("replacement") ? hf::text_of(json, "replacement", where) : std::string(hf::kMetaspace);
    if (replacement.empty())
      throw Error(ErrorCode::BadFormat, "'" + where + "': the replacement of \"Metaspace\" is empty.");
    const bool strips =
        hf::flag_of(json, "add_prefix_space", true) && json.value("prepend_scheme", "always") != "never";
    return std::make_shared<Metaspace>(replacement, strips, where);
  }
  if (type == "BPEDecoder") {
    const std::string suffix = json.contains("suffix") ? hf::text_of(json, "suffix", where) : "</w>";
    if (suffix.empty())
      throw Error(ErrorCode::BadFormat, "'" + where + "': the suffix of the decoder \"BPEDecoder\" is empty.");
    return std::make_shared<WordEnd>(suffix, where);
  }
  hf::unsupported("decoder", type, "Sequence, Replace, ByteFallback, Fuse, Strip, ByteLevel, Metaspace, BPEDecoder",
                  where);
}

}  // namespace qs
