#pragma once

#include <cstdint>
#include <optional>
#include <queue>
#include <vector>

namespace qs {

/// What two neighbouring symbols become. The lowest priority merges first, the leftmost of equals.
struct Merge {
  double priority = 0.0;
  std::int32_t id = 0;
};

/// Byte-pair encoding of one word in O(n log n): repeatedly replaces the neighbours with the lowest priority.
/// @param find  (left id, right id) -> std::optional<Merge>; must not change between calls
template <typename Find>
std::vector<std::int64_t> merge_pairs(const std::vector<std::int32_t>& symbols, const Find& find) {
  struct Node {
    std::int32_t id;
    std::int64_t previous, next;  // -1: none
    bool alive = true;
  };
  struct Candidate {
    Merge merge;
    std::int64_t left;
    std::int32_t left_id, right_id;
    bool operator<(const Candidate& other) const {  // the queue serves its largest first
      if (merge.priority != other.merge.priority) return merge.priority > other.merge.priority;
      return left > other.left;
    }
  };
  const auto count = static_cast<std::int64_t>(symbols.size());
  std::vector<Node> nodes;
  nodes.reserve(symbols.size());
  for (std::int64_t i = 0; i < count; ++i) {
    nodes.push_back({symbols[static_cast<std::size_t>(i)], i - 1, i + 1 < count ? i + 1 : -1});
  }
  std::priority_queue<Candidate> queue;
  const auto offer = [&](std::int64_t left) {
    if (left < 0) return;
    const Node& a = nodes[static_cast<std::size_t>(left)];
    if (a.next < 0) return;
    const Node& b = nodes[static_cast<std::size_t>(a.next)];
    if (const std::optional<Merge> merge = find(a.id, b.id)) queue.push({*merge, left, a.id, b.id});
  };
  for (std::int64_t i = 0; i + 1 < count; ++i) offer(i);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Node& a = nodes[static_cast<std::size_t>(best.left)];
    if (!a.alive || a.id != best.left_id || a.next < 0) continue;
    Node& b = nodes[static_cast<std::size_t>(a.next)];
    if (b.id != best.right_id) continue;
    a.id = best.merge.id;
    a.next = b.next;
    b.alive = false;
    if (a.next >= 0) nodes[static_cast<std::size_t>(a.next)].previous = best.left;
    offer(a.previous);
    offer(best.left);
  }
  std::vector<std::int64_t> ids;
  for (const Node& node : nodes) {
    if (node.alive) ids.push_back(node.id);
  }
  return ids;
}

}  // namespace qs
