#include "backend/tokenizer/hf_normalizer.h"

#include <vector>

#include "backend/tokenizer/hf_json.h"
#include "backend/tokenizer/nfc.h"

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
  Strip(bool left, bool right, const std::string& where)
      : left_(left), right_(right), start_("\\A\\s+", where), end_("\\s+\\z", where) {}
  std::string apply(std::string text) const override {
    if (left_) text = start_.replace_all(text, "");
    if (right_) text = end_.replace_all(text, "");
    return text;
  }

 private:
  bool left_, right_;
  Regex start_, end_;
};

class Nfc final : public HfNormalizer {
 public:
  std::string apply(std::string text) const override { return normalize_nfc(text); }
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
    return std::make_shared<Strip>(hf::flag_of(json, "strip_left", true), hf::flag_of(json, "strip_right", true),
                                   where);
  if (type == "NFC") return std::make_shared<Nfc>();
  hf::unsupported("normalizer", type, "Sequence, Prepend, Replace, Strip, NFC", where);
}

}  // namespace qs
