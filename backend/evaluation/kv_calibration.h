#pragma once

#include <cstdint>
#include <filesystem>

#include "backend/evaluation/evaluate.h"
#include "backend/method.h"

namespace qs {

/// What a KV calibration reads: windows at random places of a text, drawn with the seed.
struct KvCalibrationRequest {
  EvalText text;
  std::int64_t windows = 16;
  std::int64_t window = 0;  ///< tokens of each; 0: the smaller of 2048, the context and the text
  std::uint64_t seed = 42;
};

/// Places may overlap. @return token ids [windows][window]
/// @throws Error InvalidArgument when the window does not fit the context or the text
std::vector<std::vector<std::int64_t>> draw_windows(const Model& model, const KvCalibrationRequest& request);

/// Runs the full-precision model over the windows and lets the method of `setup` learn from them; the same seed gives
/// the same artifact.
/// @throws Error InvalidArgument for a method without calibration, as draw_windows
KvArtifact calibrate_kv(const Model& model, const Setup& setup, const KvCalibrationRequest& request,
                        const JobContext& job);

/// Where remembered_kv_calibration keeps its result. @param setup  may be a chain or differ from layer to layer
std::filesystem::path kv_calibration_file(const Model& model, const Setup& setup, const KvCalibrationRequest& request,
                                          const std::filesystem::path& folder);

/// calibrate_kv, remembered in `folder` by model, setup, text, windows and seed. A remembered file that cannot be read
/// is made again; one that cannot be written is not remembered.
KvArtifact remembered_kv_calibration(const Model& model, const Setup& setup, const KvCalibrationRequest& request,
                                     const std::filesystem::path& folder, const JobContext& job);

}  // namespace qs
