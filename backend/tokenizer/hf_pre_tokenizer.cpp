#include "backend/tokenizer/hf_pre_tokenizer.h"

#include <functional>
#include <unordered_map>

#include "backend/tokenizer/hf_json.h"
#include "backend/tokenizer/unicode.h"
#include "backend/tokenizer/utf8.h"

namespace qs {
namespace {

constexpr const char* kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class Sequence final : public HfPreTokenizer {
 public:
  explicit Sequence(std::vector<std::shared_ptr<const HfPreTokenizer>> steps) : steps_(std::move(steps)) {}
  void apply(const std::string& word, bool at_start, std::vector<std::string>& words) const override {
    std::vector<std::string> current = {word};
    for (const auto& step : steps_) {
      std::vector<std::string> next;
      for (std::size_t i = 0; i < current.size(); ++i) step->apply(current[i], at_start && i == 0, next);
      current = std::move(next);
    }
    words.insert(words.end(), std::make_move_iterator(current.begin()), std::make_move_iterator(current.end()));
  }

 private:
  std::vector<std::shared_ptr<const HfPreTokenizer>> steps_;
};

/// What becomes of the text that the pattern of a Split matches.
enum class Behavior { Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous };

struct Piece {
  std::size_t begin, end;
  bool match;
};

/// Puts the pieces of a word together as a behaviour asks.
void join(const std::string& word, const std::vector<Piece>& pieces, Behavior behavior,
          std::vector<std::string>& words) {
  std::string pending;
  bool pending_match = false;
  const auto flush = [&] {
    if (!pending.empty()) words.push_back(std::move(pending));
    pending.clear();
  };
  for (const Piece& piece : pieces) {
    const std::string text = word.substr(piece.begin, piece.end - piece.begin);
    switch (behavior) {
      case Behavior::Removed:
        if (!piece.match) words.push_back(text);
        break;
      case Behavior::Isolated:
        words.push_back(text);
        break;
      case Behavior::MergedWithPrevious:
        if (!piece.match || pending_match) flush();
        pending += text;
        pending_match = piece.match;
        break;
      case Behavior::MergedWithNext:
        if (piece.match || !pending_match) flush();
        pending += text;
        pending_match = piece.match;
        break;
      case Behavior::Contiguous:
        if (piece.match != pending_match) flush();
        pending += text;
        pending_match = piece.match;
        break;
    }
  }
  flush();
}

class Split final : public HfPreTokenizer {
 public:
  Split(Regex pattern, Behavior behavior, bool invert)
      : pattern_(std::move(pattern)), behavior_(behavior), invert_(invert) {}
  void apply(const std::string& word, bool, std::vector<std::string>& words) const override {
    std::vector<Piece> pieces;
    std::size_t done = 0;
    pattern_.for_each(word, [&](std::size_t begin, std::size_t end) {
      if (begin > done) pieces.push_back({done, begin, invert_});
      pieces.push_back({begin, end, !invert_});
      done = end;
    });
    if (done < word.size()) pieces.push_back({done, word.size(), invert_});
    join(word, pieces, behavior_, words);
  }

 private:
  Regex pattern_;
  Behavior behavior_;
  bool invert_;
};

/// Cuts at each character of a kind.
class CharacterSplit final : public HfPreTokenizer {
 public:
  CharacterSplit(std::function<bool(char32_t)> matches, Behavior behavior)
      : matches_(std::move(matches)), behavior_(behavior) {}
  void apply(const std::string& word, bool, std::vector<std::string>& words) const override {
    std::vector<Piece> pieces;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t length = utf8::length_of(static_cast<unsigned char>(word[at]));
      const bool match = matches_(utf8::to_code_points(std::string_view(word).substr(at, length)).front());
      if (match || pieces.empty() || pieces.back().match) {
        pieces.push_back({at, at + length, match});
      } else {
        pieces.back().end = at + length;
      }
      at += length;
    }
    join(word, pieces, behavior_, words);
  }

 private:
  std::function<bool(char32_t)> matches_;
  Behavior behavior_;
};

/// Runs of word characters, runs of what is neither word nor space; spaces go.
class Whitespace final : public HfPreTokenizer {
 public:
  void apply(const std::string& word, bool, std::vector<std::string>& words) const override {
    enum class Kind { Space, Word, Other };
    Kind last = Kind::Space;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t length = utf8::length_of(static_cast<unsigned char>(word[at]));
      const char32_t c = utf8::to_code_points(std::string_view(word).substr(at, length)).front();
      const Kind kind = unicode::is_space(c) ? Kind::Space : unicode::is_word(c) ? Kind::Word : Kind::Other;
      if (kind != Kind::Space) {
        if (kind != last) words.emplace_back();
        words.back().append(word, at, length);
      }
      last = kind;
      at += length;
    }
  }
};

class ByteLevel final : public HfPreTokenizer {
 public:
  ByteLevel(bool add_prefix_space, bool use_regex, const std::string& where)
      : add_prefix_space_(add_prefix_space), use_regex_(use_regex), pattern_(kGpt2Pattern, where) {}
  void apply(const std::string& word, bool, std::vector<std::string>& words) const override {
    const std::string text = add_prefix_space_ && !word.empty() && word[0] != ' ' ? " " + word : word;
    if (!use_regex_) {
      words.push_back(byte_level_encode(text));
      return;
    }
    std::size_t done = 0;
    pattern_.for_each(text, [&](std::size_t begin, std::size_t end) {
      if (begin > done) words.push_back(byte_level_encode(std::string_view(text).substr(done, begin - done)));
      words.push_back(byte_level_encode(std::string_view(text).substr(begin, end - begin)));
      done = end;
    });
    if (done < text.size()) words.push_back(byte_level_encode(std::string_view(text).substr(done)));
  }

 private:
  bool add_prefix_space_, use_regex_;
  Regex pattern_;
};

class Metaspace final : public HfPreTokenizer {
 public:
  enum class Prepend { Always, First, Never };
  Metaspace(std::string replacement, Prepend prepend, bool split)
      : replacement_(std::move(replacement)), prepend_(prepend), split_(split) {}
  void apply(const std::string& word, bool at_start, std::vector<std::string>& words) const override {
    std::string text;
    for (const char c : word) {
      if (c == ' ') {
        text += replacement_;
      } else {
        text += c;
      }
    }
    const bool wanted = prepend_ == Prepend::Always || (prepend_ == Prepend::First && at_start);
    if (wanted && text.compare(0, replacement_.size(), replacement_) != 0) text = replacement_ + text;
    if (!split_) {
      if (!text.empty()) words.push_back(text);
      return;
    }
    std::size_t begin = 0;
    while (begin < text.size()) {
      std::size_t end = text.find(replacement_, begin + 1);
      if (end == std::string::npos) end = text.size();
      words.push_back(text.substr(begin, end - begin));
      begin = end;
    }
  }

 private:
  std::string replacement_;
  Prepend prepend_;
  bool split_;
};

Behavior behavior_of(const nlohmann::json& json, const std::string& where) {
  static const std::unordered_map<std::string, Behavior> kBehaviors = {
      {"Isolated", Behavior::Isolated},
      {"Removed", Behavior::Removed},
      {"MergedWithPrevious", Behavior::MergedWithPrevious},
      {"MergedWithNext", Behavior::MergedWithNext},
      {"Contiguous", Behavior::Contiguous}};
  const std::string name = hf::text_of(json, "behavior", where);
  const auto it = kBehaviors.find(name);
  if (it == kBehaviors.end())
    hf::unsupported("Split behavior", name, "Isolated, Removed, MergedWithPrevious, MergedWithNext, Contiguous", where);
  return it->second;
}

std::shared_ptr<const HfPreTokenizer> make_delimiter(const nlohmann::json& json, const std::string& where) {
  const std::vector<char32_t> delimiter = utf8::to_code_points(hf::text_of(json, "delimiter", where));
  if (delimiter.size() != 1)
    throw Error(ErrorCode::BadFormat, "'" + where + "': the delimiter of \"CharDelimiterSplit\" is not one character.");
  return std::make_shared<CharacterSplit>([c = delimiter[0]](char32_t other) { return other == c; }, Behavior::Removed);
}

std::shared_ptr<const HfPreTokenizer> make_metaspace(const nlohmann::json& json, const std::string& where) {
  std::string scheme = hf::flag_of(json, "add_prefix_space", true) ? "always" : "never";
  if (json.contains("prepend_scheme")) scheme = hf::text_of(json, "prepend_scheme", where);
  if (scheme != "always" && scheme != "first" && scheme != "never") {
    hf::unsupported("Metaspace prepend_scheme", scheme, "always, first, never", where);
  }
  const auto prepend = scheme == "always"  ? Metaspace::Prepend::Always
                       : scheme == "first" ? Metaspace::Prepend::First
                                           : Metaspace::Prepend::Never;
  const std::string replacement =
      json.contains("replacement") ? hf::text_of(json, "replacement", where) : std::string(hf::kMetaspace);
  if (replacement.empty())
    throw Error(ErrorCode::BadFormat, "'" + where + "': the replacement of \"Metaspace\" is empty.");
  return std::make_shared<Metaspace>(replacement, prepend, hf::flag_of(json, "split", true));
}

}  // namespace

const std::vector<std::string>& byte_level_characters() {
  static const auto characters = [] {
    std::vector<std::string> all(256);
    char32_t next = 256;
    for (char32_t byte = 0; byte < 256; ++byte) {
      const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      utf8::append(all[byte], printable ? byte : next++);
    }
    return all;
  }();
  return characters;
}

std::string byte_level_encode(std::string_view bytes) {
  std::string result;
  for (const char byte : bytes) result += byte_level_characters()[static_cast<unsigned char>(byte)];
  return result;
}

std::string byte_level_decode(std::string_view token) {
  static const auto bytes = [] {
    std::unordered_map<std::string_view, char> map;
    for (std::size_t byte = 0; byte < 256; ++byte) map.emplace(byte_level_characters()[byte], static_cast<char>(byte));
    return map;
  }();
  std::string result;
  for (std::size_t i = 0; i < token.size();) {
    const std::size_t length = utf8::length_of(static_cast<unsigned char>(token[i]));
    const auto it = bytes.find(token.substr(i, length));
    if (it == bytes.end()) return std::string(token);
    result.push_back(it->second);
    i += length;
  }
  return result;
}

std::shared_ptr<const HfPreTokenizer> make_hf_pre_tokenizer(const nlohmann::json& json, const std::string& where) {
  if (json.is_null()) return nullptr;
  const std::string type = hf::type_of(json, "pre-tokenizer", where);
  if (type == "Sequence") {
    std::vector<std::shared_ptr<const HfPreTokenizer>> steps;
    for (const auto& step : hf::list_of(json, "pretokenizers", where)) {
      if (auto made = make_hf_pre_tokenizer(step, where)) steps.push_back(std::move(made));
    }
    return std::make_shared<Sequence>(std::move(steps));
  }
  if (type == "ByteLevel") {
    return std::make_shared<ByteLevel>(hf::flag_of(json, "add_prefix_space", true),
                                       hf::flag_of(json, "use_regex", true), where);
  }
  if (type == "Digits") {
    const bool each = hf::flag_of(json, "individual_digits", false);
    return std::make_shared<Split>(Regex(each ? "\\p{N}" : "\\p{N}+", where), Behavior::Isolated, false);
  }
  if (type == "Split")
    return std::make_shared<Split>(hf::pattern_of(json, where), behavior_of(json, where),
                                   hf::flag_of(json, "invert", false));
  if (type == "Punctuation") {
    const Behavior behavior = json.contains("behavior") ? behavior_of(json, where) : Behavior::Isolated;
    return std::make_shared<CharacterSplit>(&unicode::is_punctuation, behavior);
  }
  if (type == "WhitespaceSplit") return std::make_shared<CharacterSplit>(&unicode::is_space, Behavior::Removed);
  if (type == "Whitespace") return std::make_shared<Whitespace>();
  if (type == "CharDelimiterSplit") return make_delimiter(json, where);
  if (type == "Metaspace") return make_metaspace(json, where);
  hf::unsupported("pre-tokenizer", type,
                  "Sequence, ByteLevel, Digits, Split, Metaspace, Punctuation, Whitespace, WhitespaceSplit, "
                  "CharDelimiterSplit",
                  where);
}

}  // namespace qs
