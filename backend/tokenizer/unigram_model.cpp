#include "backend/tokenizer/unigram_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "backend/tokenizer/utf8.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kUnknownPenalty = 10.0;
constexpr std::size_t kMaxVocabulary = 1 << 24;

}  // namespace

UnigramLattice::UnigramLattice(const std::vector<Piece>& pieces, std::int32_t unk_id, bool single_precision)
    : unk_id_(unk_id), single_precision_(single_precision) {
  std::vector<std::pair<std::string, std::int32_t>> table;
  double lowest = std::numeric_limits<double>::infinity();
  highest_ = -std::numeric_limits<double>::infinity();
  for (const Piece& piece : pieces) {
    table.emplace_back(piece.text, static_cast<std::int32_t>(scores_.size()));
    scores_.push_back({piece.score, piece.user_defined});
    ids_.push_back(piece.id);
    if (!piece.counts) continue;
    lowest = std::min(lowest, piece.score);
    highest_ = std::max(highest_, piece.score);
  }
  if (!std::isfinite(lowest)) lowest = highest_ = 0.0;
  unk_score_ = lowest - kUnknownPenalty;
  if (single_precision_) unk_score_ = static_cast<float>(static_cast<float>(lowest) - 10.0F);
  table_ = PieceTable(std::move(table));
}

std::vector<UnigramLattice::Token> UnigramLattice::best(std::string_view text) const {
  struct End {
    double score = 0.0;
    std::int64_t begin = -1;
    std::int32_t id = -1;
  };
  std::vector<End> ends(text.size() + 1);
  const auto offer = [&](std::size_t begin, std::size_t length, double score, std::int32_t id) {
    End& end = ends[begin + length];
    double total = ends[begin].score + score;
    if (single_precision_) total = static_cast<float>(total);
    if (end.begin < 0 || total > end.score) end = {total, static_cast<std::int64_t>(begin), id};
  };
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t character =
        std::min(utf8::length_of(static_cast<unsigned char>(text[begin])), text.size() - begin);
    bool covered = false;
    table_.for_each_prefix(text.substr(begin), [&](std::size_t length, std::int32_t place) {
      const Score& score = scores_[static_cast<std::size_t>(place)];
      double value = score.value;
      if (score.user_defined) value = static_cast<double>(length) * highest_ - 0.1;
      if (single_precision_) value = static_cast<float>(value);
      offer(begin, length, value, ids_[static_cast<std::size_t>(place)]);
      covered = covered || length == character;
    });
    if (!covered) offer(begin, character, unk_score_, unk_id_);
    begin += character;
  }
  std::vector<Token> tokens;
  for (std::size_t end = text.size(); end > 0;) {
    const auto begin = static_cast<std::size_t>(ends[end].begin);
    tokens.push_back({begin, end - begin, ends[end].id});
    end = begin;
  }
  std::reverse(tokens.begin(), tokens.end());
  return tokens;
}

UnigramModel::UnigramModel(const nlohmann::json& model, const std::string& where) {
  const auto bad = [&](const std::string& what) { throw Error(ErrorCode::BadFormat, "'" + where + "' " + what); };
  if (!model.contains("vocab") || !model["vocab"].is_array() || model["vocab"].empty() ||
      model["vocab"].size() >= kMaxVocabulary) {
    bad("has no \"vocab\" in its model: expected a list of [piece, score].");
  }
  std::vector<UnigramLattice::Piece> pieces;
  for (const auto& entry : model["vocab"]) {
    const auto id = static_cast<std::int32_t>(pieces.size());
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number() ||
        !std::isfinite(entry[1].get<double>())) {
      bad("has a piece " + std::to_string(id) + " that is no [piece, score]: " +
          entry.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).substr(0, 80) + ".");
    }
    pieces.push_back({entry[0].get<std::string>(), entry[1].get<double>(), id, false, true});
    vocabulary_.emplace(pieces.back().text, id);
  }
  if (model.contains("unk_id") && model["unk_id"].is_number_integer()) {
    unk_id_ = model["unk_id"].get<std::int64_t>();
    if (unk_id_ < 0 || unk_id_ >= static_cast<std::int64_t>(pieces.size())) {
      bad("names piece " + std::to_string(unk_id_) + " as the unknown one; it has " + std::to_string(pieces.size()) +
          " pieces.");
    }
  }
  byte_fallback_ =
      model.contains("byte_fallback") && model["byte_fallback"].is_boolean() && model["byte_fallback"].get<bool>();
  if (byte_fallback_) find_byte_tokens(where);
  lattice_ = std::make_unique<const UnigramLattice>(pieces, static_cast<std::int32_t>(unk_id_), false);
}

void UnigramModel::encode(std::string_view word, std::vector<std::int64_t>& ids) const {
  bool after_unknown = false;
  for (const auto& token : lattice_->best(word)) {
    // The unknown piece's own text, written out, is a piece like any other.
    const bool unknown =
        token.id == unk_id_ && !vocabulary_.contains(std::string(word.substr(token.begin, token.length)));
    if (!unknown) {
      ids.push_back(token.id);
    } else if (byte_fallback_) {
      for (const char byte : word.substr(token.begin, token.length))
        ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
    } else if (!after_unknown && unk_id_ >= 0) {
      ids.push_back(unk_id_);
    }
    after_unknown = unknown;
  }
}

}  // namespace qs
