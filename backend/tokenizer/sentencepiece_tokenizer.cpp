#include "backend/tokenizer/sentencepiece_tokenizer.h"

#include <algorithm>
#include <array>
#include <unordered_map>

#include "backend/formats/mapped_file.h"
#include "backend/tokenizer/bpe_merge.h"
#include "backend/tokenizer/piece_table.h"
#include "backend/tokenizer/sentencepiece_normalizer.h"
#include "backend/tokenizer/token_model.h"
#include "backend/tokenizer/tokenizer_files.h"
#include "backend/tokenizer/unigram_model.h"
#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using Type = SentencePieceModel::Type;
constexpr std::string_view kSpace = "\xE2\x96\x81";

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(SentencePieceModel model, const SentencePieceSetup& setup, const std::string& where)
      : model_(std::move(model)),
        format_(setup.format),
        normalizer_(model_, where),
        unk_id_(setup.unk_id),
        bos_id_(setup.bos_id),
        eos_id_(setup.eos_id) {
    byte_ids_.fill(-1);
    std::vector<std::pair<std::string, std::int32_t>> user_defined, unlike_markup;
    std::vector<SpecialToken> named;
    for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
      const auto& piece = model_.pieces[id];
      const auto value = static_cast<std::int32_t>(id);
      if (piece.type == Type::Normal || piece.type == Type::UserDefined) ids_.emplace(piece.text, value);
      if (piece.type == Type::UserDefined) {
        user_defined.emplace_back(piece.text, value);
        if (!looks_like_markup(piece.text)) unlike_markup.emplace_back(piece.text, value);
      }
      if (piece.type == Type::UserDefined || piece.type == Type::Control) named.push_back({piece.text, value});
      if (piece.type == Type::Unknown && unk_id_ < 0) unk_id_ = value;
      if (piece.type == Type::Control && piece.text == model_.bos_piece && bos_id_ < 0) bos_id_ = value;
      if (piece.type == Type::Control && piece.text == model_.eos_piece && eos_id_ < 0) eos_id_ = value;
      if (piece.type != Type::Byte) continue;
      const auto byte = byte_token_value(piece.text);
      if (!byte)
        throw Error(ErrorCode::BadFormat, "'" + where + "': the byte piece \"" + piece.text + "\" names no byte.");
      byte_ids_[*byte] = value;
    }
    if (model_.byte_fallback && std::find(byte_ids_.begin(), byte_ids_.end(), -1) != byte_ids_.end()) {
      throw Error(ErrorCode::BadFormat,
                  "'" + where + "' asks for byte fallback, but lacks some of the 256 byte pieces.");
    }
    for (const auto& [name, id] :
         {std::pair{"unknown", unk_id_}, std::pair{"BOS", bos_id_}, std::pair{"EOS", eos_id_}}) {
      if (id >= vocab_size()) {
        throw Error(ErrorCode::BadFormat, "'" + where + "' gives its " + name + " token the id " + std::to_string(id) +
                                              "; it has " + std::to_string(vocab_size()) + " tokens.");
      }
    }
    adds_bos_ = setup.adds_bos && bos_id_ >= 0;
    adds_eos_ = setup.adds_eos && eos_id_ >= 0;
    chat_template_ = setup.chat_template;
    user_defined_ = PieceTable(std::move(user_defined));
    unlike_markup_ = PieceTable(std::move(unlike_markup));
    set_special_tokens(std::move(named));
    if (model_.algorithm == SentencePieceModel::Algorithm::Unigram) make_lattice();
  }

  std::string kind() const override { return format_ + (lattice_ ? " unigram" : " BPE"); }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(model_.pieces.size()); }
  std::int64_t bos_id() const override { return bos_id_; }
  std::int64_t eos_id() const override { return eos_id_; }
  bool adds_bos() const override { return adds_bos_; }
  std::vector<std::int64_t> suffix_ids() const override {
    if (!adds_eos_) return {};
    return {eos_id_};
  }

  std::vector<std::int64_t> encode(std::string_view text, const EncodeOptions& options) const override {
    check_text(text);
    const std::string normal = normalizer_.apply(text);
    return lattice_ ? encode_unigram(normal)
                    : encode_bpe(normal, options.special_tokens ? user_defined_ : unlike_markup_);
  }

  std::string decode(const std::vector<std::int64_t>& ids) const override {
    std::string bytes;
    for (const std::int64_t id : ids) bytes += token_bytes(id);
    std::size_t begin = 0;
    if (model_.whitespace_as_suffix) {
      if (model_.add_dummy_prefix && bytes.ends_with(' ')) bytes.pop_back();
    } else if (model_.add_dummy_prefix || model_.remove_extra_whitespaces) {
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

  TokenKind token_kind(std::int64_t id) const override {
    check_id(id);
    if (id == unk_id_) return TokenKind::Unknown;
    if (special(id)) return TokenKind::Special;
    return piece(id).type == Type::Byte ? TokenKind::Byte : TokenKind::Normal;
  }

 private:
  const SentencePieceModel::Piece& piece(std::int64_t id) const { return model_.pieces[static_cast<std::size_t>(id)]; }
  bool special(std::int64_t id) const {
    return piece(id).type == Type::Control || piece(id).type == Type::Unknown || id == unk_id_;
  }
  bool is_user_defined(std::int32_t id) const { return id < vocab_size() && piece(id).type == Type::UserDefined; }

  void make_lattice() {
    std::vector<UnigramLattice::Piece> pieces;
    for (std::size_t id = 0; id < model_.pieces.size(); ++id) {
      const auto& entry = model_.pieces[id];
      if (entry.type != Type::Normal && entry.type != Type::UserDefined) continue;
      pieces.push_back({entry.text, entry.score, static_cast<std::int32_t>(id), entry.type == Type::UserDefined,
                        entry.type == Type::Normal});
    }
    lattice_ = std::make_unique<const UnigramLattice>(pieces, static_cast<std::int32_t>(unk_id_), true);
  }

  /// Ids of a stretch that no piece covers.
  void put_unknown(std::string_view text, bool& after_unknown, std::vector<std::int64_t>& ids) const {
    if (model_.byte_fallback) {
      for (const char byte : text) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
      return;
    }
    if (!after_unknown && unk_id_ >= 0) ids.push_back(unk_id_);
    after_unknown = true;
  }

  std::vector<std::int64_t> encode_unigram(const std::string& normal) const {
    std::vector<std::int64_t> ids;
    bool after_unknown = false;
    for (const auto& token : lattice_->best(normal)) {
      if (token.id == unk_id_) {
        put_unknown(std::string_view(normal).substr(token.begin, token.length), after_unknown, ids);
      } else {
        ids.push_back(token.id);
        after_unknown = false;
      }
    }
    return ids;
  }

  std::vector<std::int64_t> encode_bpe(const std::string& normal, const PieceTable& whole_pieces) const {
    // Characters without a piece of their own get an id behind the vocabulary for the time of the merging.
    std::vector<std::string> strangers;
    std::unordered_map<std::string, std::int32_t> stranger_ids;
    const auto count = static_cast<std::int32_t>(model_.pieces.size());
    const auto text_of = [&](std::int32_t id) -> const std::string& {
      return id < count ? piece(id).text : strangers[static_cast<std::size_t>(id - count)];
    };
    std::vector<std::int32_t> symbols;
    for (std::size_t i = 0; i < normal.size();) {
      if (const auto [length, whole] = whole_pieces.longest_prefix(std::string_view(normal).substr(i)); whole >= 0) {
        symbols.push_back(whole);
        i += length;
        continue;
      }
      const std::string character = normal.substr(i, utf8::length_of(static_cast<unsigned char>(normal[i])));
      i += character.size();
      if (const auto it = ids_.find(character); it != ids_.end() && !is_user_defined(it->second)) {
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
        after_unknown = false;
      } else {
        put_unknown(text_of(static_cast<std::int32_t>(id)), after_unknown, ids);
      }
    }
    return ids;
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

  SentencePieceModel model_;
  std::string format_;
  SentencePieceNormalizer normalizer_;
  std::unordered_map<std::string, std::int32_t> ids_;  ///< of pieces that may come out of merging
  PieceTable user_defined_, unlike_markup_;
  std::unique_ptr<const UnigramLattice> lattice_;  ///< null for BPE
  std::array<std::int32_t, 256> byte_ids_{};
  std::int64_t unk_id_ = -1, bos_id_ = -1, eos_id_ = -1;
  bool adds_bos_ = true, adds_eos_ = false;
};

}  // namespace

std::shared_ptr<const Tokenizer> make_sentencepiece_tokenizer(SentencePieceModel model, const SentencePieceSetup& setup,
                                                              const std::string& where) {
  return std::make_shared<SentencePieceTokenizer>(std::move(model), setup, where);
}

std::shared_ptr<const Tokenizer> load_sentencepiece_tokenizer(const std::filesystem::path& tokenizer_model) {
  SentencePieceModel model = parse_sentencepiece_model(read_text_file(tokenizer_model), tokenizer_model.string());
  const TokenizerConfig config = read_tokenizer_config(tokenizer_model.parent_path());
  SentencePieceSetup setup;
  setup.adds_bos = config.adds_bos.value_or(true);
  setup.adds_eos = config.adds_eos.value_or(false);
  setup.chat_template = config.chat_template;
  return make_sentencepiece_tokenizer(std::move(model), setup, tokenizer_model.string());
}

}  // namespace qs
