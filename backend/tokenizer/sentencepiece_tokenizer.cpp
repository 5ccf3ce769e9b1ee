#include "backend/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>

#include "backend/formats/mapped_file.h"
#include "backend/tokenizer/bpe_merge.h"
#include "backend/tokenizer/bpe_model.h"
#include "backend/tokenizer/sentencepiece_model.h"
#include "backend/tokenizer/tokenizer_files.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Type = SentencePieceModel::Type;
constexpr std::string_view kSpace = "\xE2\x96\x81";

class SentencePieceTokenizer final : public Tokenizer {
 public:
  explicit SentencePieceTokenizer(const std::filesystem::path& path)
      : model_(parse_sentencepiece_model(read_text_file(path), path.string())) {
    byte_ids_.fill(-1);
    for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
      const auto& piece = model_.pieces[id];
      const auto value = static_cast<std::int32_t>(id);
      if (piece.type == Type::Normal || piece.type == Type::UserDefined) ids_.emplace(piece.text, value);
      if (piece.type == Type::UserDefined) user_defined_.push_back(value);
      if (piece.type == Type::Unknown && unk_id_ < 0) unk_id_ = value;
      if (piece.type == Type::Control && piece.text == model_.bos_piece) bos_id_ = value;
      if (piece.type == Type::Control && piece.text == model_.eos_piece) eos_id_ = value;
      if (piece.type != Type::Byte) continue;
      const auto byte = byte_token_value(piece.text);
      if (!byte)
        throw Error(ErrorCode::BadFormat,
                    "'" + path.string() + "': the byte piece \"" + piece.text + "\" names no byte.");
      byte_ids_[*byte] = value;
    }
    if (model_.byte_fallback && std::find(byte_ids_.begin(), byte_ids_.end(), -1) != byte_ids_.end()) {
      throw Error(ErrorCode::BadFormat,
                  "'" + path.string() + "' asks for byte fallback, but lacks some of the 256 byte pieces.");
    }
    adds_bos_ = read_tokenizer_config(path.parent_path()).adds_bos.value_or(true) && bos_id_ >= 0;
    std::sort(user_defined_.begin(), user_defined_.end(),
              [this](std::int32_t a, std::int32_t b) { return piece(a).text.size() > piece(b).text.size(); });
  }

  std::string kind() const override { return "SentencePiece BPE"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(model_.pieces.size()); }
  std::int64_t bos_id() const override { return bos_id_; }
  std::int64_t eos_id() const override { return eos_id_; }
  bool adds_bos() const override { return adds_bos_; }

  std::vector<std::int64_t> encode(std::string_view text) const override {
    if (const auto at = utf8::first_invalid(text); at != std::string_view::npos) {
      throw Error(ErrorCode::InvalidArgument, "The text is not UTF-8: byte " + std::to_string(at) +
                                                  " does not belong to a character. Convert the text to UTF-8.");
    }
    const std::string normal = normalize(text);
    // Characters without a piece of their own get an id behind the vocabulary for the time of the merging.
    std::vector<std::string> strangers;
    std::unordered_map<std::string, std::int32_t> stranger_ids;
    const auto count = static_cast<std::int32_t>(model_.pieces.size());
    const auto text_of = [&](std::int32_t id) -> const std::string& {
      return id < count ? piece(id).text : strangers[static_cast<std::size_t>(id - count)];
    };
    std::vector<std::int32_t> symbols;
    for (std::size_t i = 0; i < normal.size();) {
      if (const std::int32_t whole = user_defined_at(normal, i); whole >= 0) {
        symbols.push_back(whole);
        i += piece(whole).text.size();
        continue;
      }
      const std::string character = normal.substr(i, utf8::length_of(static_cast<unsigned char>(normal[i])));
      i += character.size();
      if (const auto it = ids_.find(character); it != ids_.end()) {
        symbols.push_back(it->second);
      } else {
        const auto [entry, fresh] =
            stranger_ids.emplace(character, count + static_cast<std::int32_t>(strangers.size()));
        if (fresh) strangers.push_back(character);
        symbols.push_back(entry->second);
      }
    }
    const auto merged = merge_pairs(symbols, [&](std::int32_t left, std::int32_t right) -> std::optional<Merge> {
      if (is_user_defined(left) || is_user_defined(right)) return std::nullopt;
      const auto it = ids_.find(text_of(left) + text_of(right));
      if (it == ids_.end() || is_user_defined(it->second)) return std::nullopt;
      return Merge{-static_cast<double>(piece(it->second).score), it->second};
    });
    std::vector<std::int64_t> ids;
    bool after_unknown = false;
    for (const std::int64_t id : merged) {
      if (id < count) {
        ids.push_back(id);
      } else if (model_.byte_fallback) {
        for (const char byte : text_of(static_cast<std::int32_t>(id)))
          ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
      } else if (!after_unknown && unk_id_ >= 0) {
        ids.push_back(unk_id_);
      }
      after_unknown = id >= count && !model_.byte_fallback;
    }
    return ids;
  }

  std::string decode(const std::vector<std::int64_t>& ids) const override {
    std::string bytes;
    for (const std::int64_t id : ids) bytes += token_bytes(id);
    std::size_t begin = 0;
    if (model_.add_dummy_prefix || model_.remove_extra_whitespaces) {
      while (begin < bytes.size() && bytes[begin] == ' ' && (begin == 0 || model_.remove_extra_whitespaces)) ++begin;
    }
    return utf8::replace_invalid(std::string_view(bytes).substr(begin));
  }

  std::string token_bytes(std::int64_t id) const override {
    check_id(id);
    if (special(id)) return {};
    if (piece(id).type == Type::Byte) return std::string(1, static_cast<char>(*byte_token_value(piece(id).text)));
    return with_spaces(piece(id).text);
  }

  std::string token_text(std::int64_t id) const override {
    check_id(id);
    return special(id) || piece(id).type == Type::Byte ? piece(id).text : with_spaces(piece(id).text);
  }

 private:
  const SentencePieceModel::Piece& piece(std::int64_t id) const { return model_.pieces[static_cast<std::size_t>(id)]; }
  bool special(std::int64_t id) const { return piece(id).type == Type::Control || piece(id).type == Type::Unknown; }
  bool is_user_defined(std::int32_t id) const { return id < vocab_size() && piece(id).type == Type::UserDefined; }

  std::int32_t user_defined_at(const std::string& text, std::size_t at) const {
    for (const std::int32_t id : user_defined_) {  // the longest first
      if (text.compare(at, piece(id).text.size(), piece(id).text) == 0) return id;
    }
    return -1;
  }

  std::string normalize(std::string_view text) const {
    std::string plain;
    for (const char c : text) {
      if (c == ' ' && model_.remove_extra_whitespaces && (plain.empty() || plain.back() == ' ')) continue;
      plain.push_back(c);
    }
    if (model_.remove_extra_whitespaces && !plain.empty() && plain.back() == ' ') plain.pop_back();
    if (plain.empty()) return plain;
    if (model_.add_dummy_prefix) plain.insert(plain.begin(), ' ');
    if (!model_.escape_whitespaces) return plain;
    std::string escaped;
    for (const char c : plain) {
      if (c == ' ') {
        escaped += kSpace;
      } else {
        escaped.push_back(c);
      }
    }
    return escaped;
  }

  static std::string with_spaces(const std::string& piece) {
    std::string text;
    std::size_t done = 0;
    for (std::size_t at = piece.find(kSpace); at != std::string::npos; at = piece.find(kSpace, done)) {
      text.append(piece, done, at - done).push_back(' ');
      done = at + kSpace.size();
    }
    return text.append(piece, done);
  }

  void check_id(std::int64_t id) const {
    if (id < 0 || id >= vocab_size()) {
      throw Error(ErrorCode::InvalidArgument, "Token id " + std::to_string(id) + " is outside the vocabulary of " +
                                                  std::to_string(vocab_size()) + " tokens.");
    }
  }

  SentencePieceModel model_;
  std::unordered_map<std::string, std::int32_t> ids_;  ///< of pieces that may come out of merging
  std::vector<std::int32_t> user_defined_;             ///< the longest first
  std::array<std::int32_t, 256> byte_ids_{};
  std::int64_t unk_id_ = -1, bos_id_ = -1, eos_id_ = -1;
  bool adds_bos_ = true;
};

}  // namespace

std::shared_ptr<const Tokenizer> load_sentencepiece_tokenizer(const std::filesystem::path& tokenizer_model) {
  return std::make_shared<SentencePieceTokenizer>(tokenizer_model);
}

}  // namespace qs
