#pragma once

#include <filesystem>

#include "backend/method.h"

namespace qs {

/// redo_layer (layerwise.h) by a setup line: quantizes block `layer` of the checkpoint that `context` names again with
/// this setup, which must be of the method that made the checkpoint.
/// @throws Error Unsupported for a method that does not go layer by layer; InvalidArgument for spqr with target_bits,
///         whose threshold is searched on the first block only, and as redo_layer
void redo_layer(const Model& model, const Setup& setup, std::int64_t layer, const WeightContext& context,
                const JobContext& job);

/// The setup that a checkpoint folder was made with. @throws Error NotFound, BadFormat
Setup checkpoint_setup(const std::filesystem::path& folder);

}  // namespace qs
