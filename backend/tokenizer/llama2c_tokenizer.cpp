#include "backend/tokenizer/llama2c_tokenizer.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "backend/formats/mapped_file.h"
#include "backend/tokenizer/bpe_merge.h"
#include "backend/tokenizer/token_model.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kUnk = 0, kBos = 1, kEos = 2, kFirstByte = 3, kFirstPiece = 259;

class Llama2cTokenizer final : public Tokenizer {
 public:
  Llama2cTokenizer(std::string_view bytes, const std::string& path) {
    const std::string where = std::string("'").append(path).append("'");
    const auto bad = [&](const std::string& what) -> Error {
      return Error(ErrorCode::BadFormat, where + " is not a llama2.c tokenizer: " + what);
    };
    std::size_t at = 0;
    const auto read = [&](auto& value) {
      if (bytes.size() - at < sizeof value) {
        throw bad("it ends at byte " + std::to_string(bytes.size()) + " in the middle of token " +
                  std::to_string(tokens_.size()) + ".");
      }
      std::memcpy(&value, bytes.data() + at, sizeof value);
      at += sizeof value;
    };
    std::int32_t longest = 0;
    read(longest);
    if (longest <= 0 || longest > 4096)
      throw bad("its first number, the longest token, is " + std::to_string(longest) + ".");
    while (at < bytes.size()) {
      float score = 0;
      std::int32_t length = 0;
      read(score);
      read(length);
      const std::string token = "token " + std::to_string(tokens_.size());
      if (!std::isfinite(score)) throw bad(token + " has a score that is not finite.");
      if (length < 0 || length > 4096) throw bad(token + " has a length of " + std::to_string(length) + ".");
      if (bytes.size() - at < static_cast<std::size_t>(length)) {
        throw bad(token + " ends at byte " + std::to_string(at + static_cast<std::size_t>(length)) + ", the file has " +
                  std::to_string(bytes.size()) + ".");
      }
      tokens_.emplace_back(bytes.substr(at, static_cast<std::size_t>(length)));
      scores_.push_back(score);
      at += static_cast<std::size_t>(length);
    }
    if (vocab_size() <= kFirstPiece)
      throw bad("it has " + std::to_string(vocab_size()) + " tokens; expected more than 259.");
    for (std::int64_t byte = 0; byte < 256; ++byte) {
      const auto value = byte_token_value(token(kFirstByte + byte));
      if (!value || *value != byte)
        throw bad("token " + std::to_string(kFirstByte + byte) + " should be a byte, but is \"" +
                  token(kFirstByte + byte) + "\".");
    }
    for (std::int64_t id = kFirstPiece; id < vocab_size(); ++id) ids_.emplace(token(id), static_cast<std::int32_t>(id));
    set_special_tokens({{"<s>", kBos}, {"</s>", kEos}});
  }

  std::string kind() const override { return "llama2.c BPE"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t bos_id() const override { return kBos; }
  std::int64_t eos_id() const override { return kEos; }
  bool adds_bos() const override { return true; }

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions&) const override {
    check_text(text);
    if (text.empty()) return {};
    std::vector<std::int32_t> symbols;
    const auto put = [&](std::string_view character) {
      const auto it = ids_.find(std::string(character));
      if (it != ids_.end()) {
        symbols.push_back(it->second);
      } else {
        for (const char byte : character)
          symbols.push_back(static_cast<std::int32_t>(kFirstByte + static_cast<unsigned char>(byte)));
      }
    };
    put(" ");
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t length = utf8::length_of(static_cast<unsigned char>(text[i]));
      put(text.substr(i, length));
      i += length;
    }
    return merge_pairs(symbols, [this](std::int32_t left, std::int32_t right) -> std::optional<Merge> {
      if (left < kFirstPiece || right < kFirstPiece) return std::nullopt;
      const auto it = ids_.find(token(left) + token(right));
      if (it == ids_.end()) return std::nullopt;
      return Merge{-static_cast<double>(scores_[static_cast<std::size_t>(it->second)]), it->second};
    });
  }

  std::string decode(const std::vector<std::int64_t>& ids) const override {
    std::string bytes;
    for (const std::int64_t id : ids) bytes += token_bytes(id);
    if (!bytes.empty() && bytes[0] == ' ') bytes.erase(0, 1);
    return utf8::replace_invalid(bytes);
  }

  std::string token_bytes(std::int64_t id) const override {
    check_id(id);
    if (id == kUnk || id == kBos || id == kEos) return {};
    if (id < kFirstPiece) return std::string(1, static_cast<char>(id - kFirstByte));
    return token(id);
  }

  std::string token_text(std::int64_t id) const override {
    check_id(id);
    if (id == kUnk || id == kBos || id == kEos) return id == kUnk ? "<unk>" : id == kBos ? "<s>" : "</s>";
    return utf8::replace_invalid(token(id));
  }

  TokenKind token_kind(std::int64_t id) const override {
    check_id(id);
    if (id == kUnk) return TokenKind::Unknown;
    if (id == kBos || id == kEos) return TokenKind::Special;
    return id < kFirstPiece ? TokenKind::Byte : TokenKind::Normal;
  }

 private:
  const std::string& token(std::int64_t id) const { return tokens_[static_cast<std::size_t>(id)]; }
  std::vector<std::string> tokens_;
  std::vector<float> scores_;
  std::unordered_map<std::string, std::int32_t> ids_;
};

}  // namespace

std::shared_ptr<const Tokenizer> make_llama2c_tokenizer(std::string_view bytes, const std::string& where) {
  return std::make_shared<Llama2cTokenizer>(bytes, where);
}

std::shared_ptr<const Tokenizer> load_llama2c_tokenizer(const std::filesystem::path& tokenizer_bin) {
  return make_llama2c_tokenizer(read_text_file(tokenizer_bin), tokenizer_bin.string());
}

}  // namespace qs
