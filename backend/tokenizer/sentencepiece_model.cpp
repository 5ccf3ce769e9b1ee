#include "backend/tokenizer/sentencepiece_model.h"

#include <cmath>
#include <cstring>
#include <set>

#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

/// Reads the fields of one protobuf message in order.
class Message {
 public:
  Message(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  bool next() {
    if (at_ == bytes_.size()) return false;
    const std::uint64_t key = varint();
    field = key >> 3;
    number = 0;
    data = {};
    switch (key & 7) {
      case 0:
        number = varint();
        break;
      case 1:
        data = take(8);
        break;
      case 2:
        data = take(varint());
        break;
      case 5:
        data = take(4);
        break;
      default:
        fail();
    }
    if (field == 0) fail();
    return true;
  }

  float real() const {
    float value = 0.0f;
    if (data.size() != sizeof value) fail();
    std::memcpy(&value, data.data(), sizeof value);
    return value;
  }

  std::uint64_t field = 0, number = 0;
  std::string_view data;

 private:
  [[noreturn]] void fail() const {
    throw Error(ErrorCode::BadFormat,
                "'" + where_ + "' is not a SentencePiece model, or it is damaged or cut off. Fetch it again.",
                "field " + std::to_string(field) + " near byte " + std::to_string(at_));
  }

  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) fail();
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= std::uint64_t{byte & 0x7Fu} << shift;
      if (byte < 0x80) return value;
    }
    fail();
  }

  std::string_view take(std::uint64_t size) {
    if (size > bytes_.size() - at_) fail();
    const auto part = bytes_.substr(at_, size);
    at_ += size;
    return part;
  }

  std::string_view bytes_;
  const std::string& where_;
  std::size_t at_ = 0;
};

SentencePieceModel::Piece read_piece(std::string_view bytes, std::size_t id, const std::string& where) {
  SentencePieceModel::Piece piece;
  for (Message m(bytes, where); m.next();) {
    if (m.field == 1) piece.text = m.data;
    if (m.field == 2) piece.score = m.real();
    if (m.field == 3) {
      if (m.number < 1 || m.number > 6) {
        throw Error(ErrorCode::BadFormat, "'" + where + "': piece " + std::to_string(id) + " has the unknown type " +
                                              std::to_string(m.number) + ".");
      }
      piece.type = static_cast<SentencePieceModel::Type>(m.number);
    }
  }
  if (piece.text.empty() || !std::isfinite(piece.score) || utf8::first_invalid(piece.text) != std::string::npos) {
    throw Error(ErrorCode::BadFormat, "'" + where + "': piece " + std::to_string(id) +
                                          " is empty, no UTF-8, or has no usable score. Fetch the file again.");
  }
  return piece;
}

void read_trainer(std::string_view bytes, const std::string& where, SentencePieceModel& model) {
  std::uint64_t type = 1;
  for (Message m(bytes, where); m.next();) {
    if (m.field == 3) type = m.number;
    if (m.field == 24) model.whitespace_as_suffix = m.number != 0;
    if (m.field == 35) model.byte_fallback = m.number != 0;
    if (m.field == 46) model.bos_piece = m.data;
    if (m.field == 47) model.eos_piece = m.data;
  }
  if (type != 1 && type != 2) {
    const char* names[] = {"", "", "", "word", "char"};
    throw Error(ErrorCode::Unsupported, "'" + where + "' is a SentencePiece model of type " +
                                            (type < 5 ? names[type] : std::to_string(type)) +
                                            "; unigram and bpe can be read.");
  }
  model.algorithm = static_cast<SentencePieceModel::Algorithm>(type);
}

void read_normalizer(std::string_view bytes, const std::string& where, SentencePieceModel& model) {
  for (Message m(bytes, where); m.next();) {
    if (m.field == 2) model.charsmap = m.data;
    if (m.field == 3) model.add_dummy_prefix = m.number != 0;
    if (m.field == 4) model.remove_extra_whitespaces = m.number != 0;
    if (m.field == 5) model.escape_whitespaces = m.number != 0;
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& where) {
  if (bytes.empty()) throw Error(ErrorCode::BadFormat, "'" + where + "' is empty; expected a SentencePiece model.");
  SentencePieceModel model;
  bool has_trainer = false;
  for (Message m(bytes, where); m.next();) {
    if (m.field == 1) model.pieces.push_back(read_piece(m.data, model.pieces.size(), where));
    if (m.field == 2) read_trainer(m.data, where, model);
    if (m.field == 3) read_normalizer(m.data, where, model);
    has_trainer = has_trainer || m.field == 2;
  }
  if (model.pieces.empty() || !has_trainer) {
    throw Error(ErrorCode::BadFormat, "'" + where + "' is not a whole SentencePiece model: it has " +
                                          std::to_string(model.pieces.size()) + " pieces and " +
                                          (has_trainer ? "a" : "no") +
                                          " description of how it was trained. Fetch it again.");
  }
  std::set<std::string_view> seen;
  for (const auto& piece : model.pieces) {
    if (piece.type == SentencePieceModel::Type::Unused && model.algorithm == SentencePieceModel::Algorithm::Bpe) {
      throw Error(ErrorCode::Unsupported,
                  "'" + where + "' marks the piece \"" + piece.text + "\" as unused, which is read for unigram only.");
    }
    if (!seen.insert(piece.text).second)
      throw Error(ErrorCode::BadFormat, "'" + where + "' holds the piece \"" + piece.text + "\" twice.");
  }
  return model;
}

}  // namespace qs
