#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "backend/types/job.h"
#include "backend/types/model_info.h"
#include "backend/types/module_info.h"

namespace qs {

struct ModelSource;

/// The tensors of a checkpoint as a tree of the parts of their names, in natural order (layer 2 before layer 10).
ModuleInfo module_tree(const ModelSource& source);
struct ModelDescription {
  ModelInfo info;
  ModuleInfo modules;
  std::string quantization;  ///< of a checkpoint that holds codes: "GPTQ, 4 bits, groups of 128"
};
/// Reads headers only. @throws Error as Model::load
ModelDescription describe_model(const std::filesystem::path& path);

/// One pass over every tensor of a checkpoint, in f64 sums over the decoded values.
/// @throws Error as Model::load
std::vector<TensorStatistics> weight_statistics(const std::filesystem::path& path, const JobContext& job);

}  // namespace qs
