#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "backend/types/tensor_view.h"

namespace qs {

/// One tensor of an HDF5 file of reconstructions.
struct NamedTensor {
  std::string path;  ///< "/layers/003/key"
  TensorView values;
  std::string axes;  ///< "kv_heads,tokens,head_dim"
};

/// Writes float32 datasets with their axes, and text attributes at the root. Written beside the target and renamed when
/// whole.
/// @throws Error Io (disk full, folder not writable)
void write_tensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                   const std::map<std::string, std::string>& attributes);

}  // namespace qs
