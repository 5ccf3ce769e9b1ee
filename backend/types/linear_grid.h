#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "backend/types/tensor_view.h"

namespace qs {

/// On which grid the weights of one quantized linear lie; plain data, read from what the linear stores.
struct LinearGrid {
  enum class Kind {
    None,    ///< in floating point, or a class that does not tell
    Affine,  ///< scale * (code - zero_point), one scale a row and group
    Binary   ///< offset + sum of +-alpha over the planes (BCQ), one alpha a row, group and plane
  };
  Kind kind = Kind::None;
  int bits = 0;  ///< of a code; Binary: planes
  std::int64_t out_features = 0, in_features = 0, groups = 0;
  std::vector<std::int32_t> group_of;  ///< of each input channel [in_features]
  TensorView scale, zero_point;        ///< Affine [out_features, groups]
  TensorView alpha;                    ///< Binary [out_features, groups, bits]
  TensorView offset;                   ///< Binary [out_features, groups]; empty: 0
  /// Binary [out_features, in_features]: bit k is set where plane k adds its alpha. Null: not at hand.
  std::shared_ptr<const std::vector<std::uint8_t>> signs;
  TensorView kept;  ///< [out_features, in_features], 1 where a weight stays in 16 bits; empty: none does
};

}  // namespace qs
