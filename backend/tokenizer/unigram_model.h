#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "backend/tokenizer/piece_table.h"
#include "backend/tokenizer/token_model.h"

namespace qs {

/// The likeliest cut of a text into pieces with scores (Kudo 2018, "Subword Regularization"; the Viterbi pass only).
/// A character that no piece covers costs the lowest score less 10.
class UnigramLattice {
 public:
  struct Piece {
    std::string text;
    double score = 0.0;
    std::int32_t id = 0;
    bool user_defined = false;  ///< preferred over any other cut of its bytes
    bool counts = true;         ///< takes part in the lowest and highest score
  };
  /// @param single_precision  adds scores as float, as SentencePiece does; ties fall as they do there
  UnigramLattice(const std::vector<Piece>& pieces, std::int32_t unk_id, bool single_precision);

  struct Token {
    std::size_t begin, length;
    std::int32_t id;
  };
  std::vector<Token> best(std::string_view text) const;

 private:
  struct Score {
    double value = 0.0;
    bool user_defined = false;
  };
  PieceTable table_;           ///< piece to its place in scores_
  std::vector<Score> scores_;  ///< by place
  std::vector<std::int32_t> ids_;
  double unk_score_ = 0.0, highest_ = 0.0;
  std::int32_t unk_id_;
  bool single_precision_;
};

/// The Unigram model of a tokenizer.json.
class UnigramModel final : public TokenModel {
 public:
  UnigramModel(const nlohmann::json& model, const std::string& where);
  std::string name() const override { return "unigram"; }
  void encode(std::string_view word, std::vector<std::int64_t>& ids) const override;

 private:
  std::unique_ptr<const UnigramLattice> lattice_;
};

}  // namespace qs
