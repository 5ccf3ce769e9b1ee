#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "backend/types/job.h"
#include "backend/types/weight_run.h"

namespace qs {

class CaptureReader;
class Model;

/// Quantizes one block of a checkpointed run again with other settings of the same method.
/// @param weights     setup line that the checkpoint was made with: its windows are used
/// @param other       setup line for this block
/// @param capture     whose text the run was calibrated on
/// @throws Error as redo_layer (backend/methods/redo_layer.h)
void retry_layer(const Model& model, const std::string& weights, const std::string& other, std::int64_t layer,
                 CaptureReader& capture, const std::filesystem::path& checkpoint, const JobContext& job);

}  // namespace qs
