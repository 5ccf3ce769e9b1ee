#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "backend/tokenizer/charsmap.h"
#include "backend/tokenizer/piece_table.h"
#include "backend/tokenizer/sentencepiece_model.h"

namespace qs {

/// SentencePiece's normalization: the table's longest match at each place (user-defined pieces stay as they are),
/// spaces collapsed and written as U+2581, the dummy space in front or behind.
class SentencePieceNormalizer {
 public:
  /// @throws Error BadFormat when the model's table is damaged
  SentencePieceNormalizer(const SentencePieceModel& model, const std::string& where);
  std::string apply(std::string_view text) const;

 private:
  struct Step {
    std::string_view text;
    std::size_t length;  ///< bytes of the input that it stands for
  };
  Step next(std::string_view text) const;

  Charsmap map_;
  PieceTable user_defined_;
  std::string space_;
  bool add_dummy_prefix_, remove_extra_whitespaces_, as_suffix_;
};

}  // namespace qs
