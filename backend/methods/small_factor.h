#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "backend/methods/kv_groups.h"

namespace qs {

/// The small tensors of DecoQuant as they are stored: a row of the cache is `coordinates * factor`, block by block of
/// `block()` channels. Keys are scored by moving the query into the coordinates, values are summed there and moved back
/// once (KV specification 7.4).
class SmallFactor {
 public:
  SmallFactor() = default;
  /// @param tensors  as split_small_factor gives them; kept as f16 or f32. @throws Error InvalidArgument when f16
  ///        overflows
  SmallFactor(const std::vector<at::Tensor>& tensors, GroupStore store);

  std::int64_t block() const { return block_; }
  std::int64_t bytes() const;
  at::Tensor matrix() const;  ///< f32 [block, block], the product of the tensors as stored

  /// <coordinates, to_coordinates(query)> = <coordinates * factor, query>. @param row, out  f32 [channels], whole
  /// blocks
  void to_coordinates(const float* row, std::int64_t channels, float* out) const;
  /// Replaces coordinates by coordinates * factor.
  void from_coordinates(float* row, std::int64_t channels) const;

 private:
  at::Tensor stored_;  ///< f16 or f32, all tensors one after the other
  std::int64_t block_ = 0;
  std::vector<std::pair<std::int64_t, std::int64_t>> shapes_;  ///< of each tensor: left, width * right
  const float* widened(std::vector<float>& copy) const;
};

}  // namespace qs
