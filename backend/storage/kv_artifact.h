#pragma once

#include <filesystem>

#include "backend/method.h"

namespace qs {

/// KV calibrations as HDF5: root attributes format = "quantoscope-kv-calibration", version and the fields of
/// KvArtifact; the tensors of layer 0 at /layers/000/<name>, named in the attribute `tensors` of their group. Tensors
/// are float16, float32, float64 or int32 and have 1 to 4 axes.

/// Written beside the target and renamed when whole.
/// @throws Error Io (disk full, folder not writable), InvalidArgument for a tensor of another type
void write_kv_artifact(const std::filesystem::path& path, const KvArtifact& artifact);

/// Nothing is believed before it is checked; what the tensors must hold is checked by the method that takes them.
/// @throws Error NotFound, BadFormat naming what is wrong
KvArtifact read_kv_artifact(const std::filesystem::path& path);

}  // namespace qs
