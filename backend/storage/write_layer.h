#pragma once

#include "backend/storage/capture_writer.h"

namespace qs {

/// Writes one layer of one window into the file, datasets made as needed. On the HDF5 thread; does not commit.
void write_layer(hid_t file, const CapturedLayer& layer, const CaptureStorage& storage, std::int64_t window);

/// Writes `values` [.., tokens, ..] (contiguous, in the type `type`) at `first` along axis 1, enlarging the dataset;
/// makes it when it is not there.
hdf5::Dataset write_along_tokens(hid_t file, const std::string& path, hdf5::ElementType type, const at::Tensor& values,
                                 std::int64_t first, const std::string& axes, const std::string& source_tap);

}  // namespace qs
