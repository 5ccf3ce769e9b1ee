#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace qs {

/// Finds which of many texts begin at a place in another text: a trie kept as a sorted list.
class PieceTable {
 public:
  PieceTable() = default;
  /// @param pieces  (text, id); empty texts are left out, of equal ones the first stays
  explicit PieceTable(std::vector<std::pair<std::string, std::int32_t>> pieces);

  bool empty() const { return pieces_.empty(); }
  /// Calls `found(length, id)` for every piece that `text` begins with, the shortest first.
  template <typename Found>
  void for_each_prefix(std::string_view text, const Found& found) const {
    std::size_t low = 0, high = pieces_.size();
    for (std::size_t depth = 0; low < high && depth < text.size(); ++depth) {
      narrow(static_cast<unsigned char>(text[depth]), depth, low, high);
      if (low < high && pieces_[low].first.size() == depth + 1) {
        found(depth + 1, pieces_[low].second);
        ++low;
      }
    }
  }
  /// The longest piece that `text` begins with. @return its length and id; {0, -1} when there is none
  std::pair<std::size_t, std::int32_t> longest_prefix(std::string_view text) const;

 private:
  /// Leaves the pieces whose byte at `depth` is `byte`; all of low..high are longer than `depth`.
  void narrow(unsigned char byte, std::size_t depth, std::size_t& low, std::size_t& high) const;

  std::vector<std::pair<std::string, std::int32_t>> pieces_;  ///< sorted by text
  std::vector<std::uint32_t> first_;                          ///< 257: where each first byte begins
};

}  // namespace qs
