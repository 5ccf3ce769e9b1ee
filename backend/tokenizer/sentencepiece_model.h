#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace qs {

/// What a SentencePiece model file (a serialized ModelProto) says, as far as encoding with BPE or unigram needs it.
///
/// It is parsed here and not by the sentencepiece library: that library brings its own copy of protobuf, whose symbols
/// clash with those of LibTorch as Debian packages it, and the process dies before main().
struct SentencePieceModel {
  enum class Algorithm { Unigram = 1, Bpe = 2 };
  enum class Type { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };
  struct Piece {
    std::string text;
    float score = 0.0f;
    Type type = Type::Normal;
  };
  Algorithm algorithm = Algorithm::Unigram;
  std::vector<Piece> pieces;  ///< by id
  std::string charsmap;       ///< the precompiled normalization table; empty for identity
  std::string bos_piece = "<s>", eos_piece = "</s>";
  bool byte_fallback = false;
  bool add_dummy_prefix = true, remove_extra_whitespaces = true, escape_whitespaces = true;
  bool whitespace_as_suffix = false;  ///< the dummy space and the spaces of words stand behind them
};

/// @param where  file, for messages
/// @throws Error BadFormat (damaged, cut off, contradictory), Unsupported (the word and char algorithms, by name)
SentencePieceModel parse_sentencepiece_model(std::string_view bytes, const std::string& where);

}  // namespace qs
