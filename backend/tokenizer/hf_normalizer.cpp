#include "backend/tokenizer/hf_normalizer.h"

#include <vector>

#include "backend/tokenizer/base64.h"
#include "backend/tokenizer/charsmap.h"
#include "backend/tokenizer/hf_json.h"
#include "backend/tokenizer/hf_pre_tokenizer.h"
#include "backend/tokenizer/unicode.h"
#include "backend/tokenizer/utf8.h"

namespace qs {
namespace {

class Sequence final : public HfNormalizer {
 public:
  explicit Sequence(std::vector<std::shared_ptr<const HfNormalizer>> steps) : steps_(std::move(steps)) {}
  std::string apply(std::string text) const override {
    for (const auto& step : steps_) text = step->apply(std::move(text));
    return text;
  }

 private:
  std::vector<std::shared_ptr<const HfNormalizer>> steps_;
};

class Prepend final : public HfNormalizer {
 public:
  explicit Prepend(std::string prefix) : prefix_(std::move(prefix)) {}
  std::string apply(std::string text) const override { return text.empty() ? text : prefix_ + text; }

 private:
  std::string prefix_;
};

class Replace final : public HfNormalizer {
 public:
  Replace(Regex pattern, std::string content) : pattern_(std::move(pattern)), content_(std::move(content)) {}
  std::string apply(std::string text) const override { return pattern_.replace_all(text, content_); }

 private:
  Regex pattern_;
  std::string content_;
};

class Strip final : public HfNormalizer {
 public:
  Strip(bool left, bool right) : left_(left), right_(right) {}
  std::string apply(std::string text) const override {
    const std::vector<char32_t> characters = utf8::to_code_points(text);
    std::size_t begin = 0, end = characters.size();
    while (left_ && begin < end && unicode::is_space(characters[begin])) ++begin;
    while (right_ && end > begin && unicode::is_space(characters[end - 1])) --end;
    std::string result;
    for (std::size_t i = begin; i < end; ++i) utf8::append(result, characters[i]);
    return result;
  }

 private:
  bool left_, right_;
};

class Form final : public HfNormalizer {
 public:
  explicit Form(unicode::Form form) : form_(form) {}
  std::string apply(std::string text) const override { return unicode::normalize(text, form_); }

 private:
  unicode::Form form_;
};

class Lowercase final : public HfNormalizer {
 public:
  std::string apply(std::string text) const override { return unicode::to_lower(text); }
};

class StripAccents final : public HfNormalizer {
 public:
  std::string apply(std::string text) const override { return unicode::without_marks(text); }
};

class ByteLevel final : public HfNormalizer {
 public:
  std::string apply(std::string text) const override { return byte_level_encode(text); }
};

class Precompiled final : public HfNormalizer {
 public:
  explicit Precompiled(Charsmap map) : map_(std::move(map)) {}
  std::string apply(std::string text) const override { return map_.apply_by_grapheme(text); }

 private:
  Charsmap map_;
};

/// The rules of SentencePiece's "nmt" beside the table: control characters go, odd spaces become plain ones.
class Nmt final : public HfNormalizer {
 public:
  std::string apply(std::string text) const override {
    std::string result;
    for (const char32_t c : utf8::to_code_points(text)) {
      const bool dropped =
          (c >= 0x1 && c <= 0x8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
      if (!dropped) utf8::append(result, becomes_space(c) ? U' ' : c);
    }
    return result;
  }

 private:
  static bool becomes_space(char32_t c) {
    return c == 0x9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 ||
           c == 0x2029 || c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
  }
};

}  // namespace

std::shared_ptr<const HfNormalizer> make_hf_normalizer(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) return nullptr;
  const std::string type = hf::type_of(json, "normalizer", where);
  if (type == "Sequence") {
    std::vector<std::shared_ptr<const HfNormalizer>> steps;
    for (const auto& step : hf::list_of(json, "normalizers", where)) {
      if (auto made = make_hf_normalizer(step, where)) steps.push_back(std::move(made));
    }
    return std::make_shared<Sequence>(std::move(steps));
  }
  if (type == "Prepend") return std::make_shared<Prepend>(hf::text_of(json, "prepend", where));
  if (type == "Replace")
    return std::make_shared<Replace>(hf::pattern_of(json, where), hf::text_of(json, "content", where));
  if (type == "Strip")
    return std::make_shared<Strip>(hf::flag_of(json, "strip_left", true), hf::flag_of(json, "strip_right", true));
  if (type == "NFC") return std::make_shared<Form>(unicode::Form::Nfc);
  if (type == "NFD") return std::make_shared<Form>(unicode::Form::Nfd);
  if (type == "NFKC") return std::make_shared<Form>(unicode::Form::Nfkc);
  if (type == "NFKD") return std::make_shared<Form>(unicode::Form::Nfkd);
  if (type == "Lowercase") return std::make_shared<Lowercase>();
  if (type == "StripAccents") return std::make_shared<StripAccents>();
  if (type == "ByteLevel") return std::make_shared<ByteLevel>();
  if (type == "Nmt") return std::make_shared<Nmt>();
  if (type == "Precompiled") {
    if (json.contains("precompiled_charsmap") && json["precompiled_charsmap"].is_null()) return nullptr;
    const auto bytes = base64_decode(hf::text_of(json, "precompiled_charsmap", where));
    if (!bytes) throw Error(ErrorCode::BadFormat, "'" + where + "': \"precompiled_charsmap\" is not base64.");
    return std::make_shared<Precompiled>(Charsmap(*bytes, where));
  }
  hf::unsupported("normalizer", type,
                  "Sequence, Prepend, Replace, Strip, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, ByteLevel, Nmt, "
                  "Precompiled",
                  where);
}

}  // namespace qs
