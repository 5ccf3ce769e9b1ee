#pragma once

#include <algorithm>
#include <vector>

#include "backend/formats/tensor_table.h"

namespace qs::fuzz {

/// Decodes the ends of every tensor; a tensor of any size costs two rows.
inline void decode_ends(const TensorTable& table) {
  constexpr std::int64_t kMaxColumns = 1 << 16;
  for (const StoredTensor& tensor : table.tensors) {
    if (!is_float(tensor.type) || tensor.rows() == 0 || tensor.columns() > kMaxColumns) continue;
    std::vector<float> row(static_cast<std::size_t>(tensor.columns()));
    decode_to_f32(tensor, 0, 1, row.data());
    decode_to_f32(tensor, tensor.rows() - 1, 1, row.data());
  }
}

}  // namespace qs::fuzz
