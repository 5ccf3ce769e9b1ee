#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "backend/method.h"
#include "backend/methods/linear_quantizer.h"

namespace qs {

/// What a checkpoint was made from, by names a person understands ("calibration text", "seed", ...).
using CheckpointIdentity = std::map<std::string, std::string>;

/// @param weights  that the run begins with
/// @param context  its windows, which layers it quantizes, and behind which setup
/// @param setup    LayerwisePlan::setup
CheckpointIdentity checkpoint_identity(const Model& model, const DecoderWeights& weights, const WeightContext& context,
                                       const std::string& setup);

/// A folder with one file a finished block: layer-0007.safetensors holds the artifacts of its linears, their tensors
/// named "mlp.up_proj/codes" and their progress as JSON in the metadata. setup.json holds the identity. Every file is
/// flushed and renamed into place, so a killed run leaves whole files only.
class LayerwiseCheckpoint {
 public:
  /// Opens the folder, or makes it. @param ignore_setup  the setup may differ (redo_layer)
  /// @throws Error InvalidArgument naming everything that differs from what the folder was made from; BadFormat, Io
  LayerwiseCheckpoint(std::filesystem::path folder, const CheckpointIdentity& identity, bool ignore_setup = false);

  bool has(std::int64_t layer) const;
  void save(std::int64_t layer, const std::vector<LinearArtifact>& artifacts) const;
  /// @param names  the linears that the block has: all of them must be there
  /// @throws Error BadFormat naming the file and what is wrong with it
  std::vector<LinearArtifact> load(std::int64_t layer, const std::vector<std::string>& names) const;
  std::filesystem::path file(std::int64_t layer) const;

 private:
  std::filesystem::path folder_;
};

}  // namespace qs
