#include "backend/tokenizer/piece_table.h"

#include <algorithm>

namespace qs {

PieceTable::PieceTable(std::vector<std::pair<std::string, std::int32_t>> pieces) : pieces_(std::move(pieces)) {
  std::erase_if(pieces_, [](const auto& piece) { return piece.first.empty(); });
  std::stable_sort(pieces_.begin(), pieces_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  pieces_.erase(
      std::unique(pieces_.begin(), pieces_.end(), [](const auto& a, const auto& b) { return a.first == b.first; }),
      pieces_.end());
  first_.assign(257, 0);
  for (const auto& piece : pieces_) ++first_[static_cast<unsigned char>(piece.first[0]) + 1U];
  for (std::size_t byte = 0; byte < 256; ++byte) first_[byte + 1] += first_[byte];
}

void PieceTable::narrow(unsigned char byte, std::size_t depth, std::size_t& low, std::size_t& high) const {
  if (depth == 0) {
    low = first_[byte];
    high = first_[byte + 1U];
    return;
  }
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(pieces_[i].first[depth]); };
  const auto bound = [&](int limit) {  // the first piece whose byte is not below `limit`
    std::size_t from = low, to = high;
    while (from < to) {
      const std::size_t middle = from + (to - from) / 2;
      if (at(middle) < limit) {
        from = middle + 1;
      } else {
        to = middle;
      }
    }
    return from;
  };
  const std::size_t begin = bound(byte), end = bound(byte + 1);
  low = begin;
  high = end;
}

std::pair<std::size_t, std::int32_t> PieceTable::longest_prefix(std::string_view text) const {
  std::pair<std::size_t, std::int32_t> best = {0, -1};
  for_each_prefix(text, [&](std::size_t length, std::int32_t id) { best = {length, id}; });
  return best;
}

}  // namespace qs
