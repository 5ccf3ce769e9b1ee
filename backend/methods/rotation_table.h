#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "backend/types/rope_spec.h"

namespace qs {

/// Cosines and sines of positions 0, 1, 2, ... for caches that hold keys before rotation. All layers and caches with
/// the same frequencies share one table, so that a token's trigonometry is computed once for a model.
class RotationTable {
 public:
  /// Rows [position][2][half]: cosines, then sines.
  struct Rows {
    std::int64_t positions = 0, half = 0;
    std::vector<float> values;
  };

  /// The table of these frequencies: the same one for all who ask while anybody holds it.
  static std::shared_ptr<RotationTable> shared(const RopeSpec& rope, std::int64_t head_dim);

  RotationTable(RopeSpec rope, std::int64_t head_dim) : rope_(std::move(rope)), head_dim_(head_dim) {}
  /// At least `positions` rows; computes up to twice as many when there are fewer. What was handed out earlier stays
  /// valid while it is held. Any thread.
  std::shared_ptr<const Rows> rows(std::int64_t positions);

 private:
  RopeSpec rope_;
  std::int64_t head_dim_;
  std::mutex mutex_;
  std::shared_ptr<const Rows> rows_;
};

}  // namespace qs
