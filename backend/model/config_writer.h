#pragma once

#include <nlohmann/json_fwd.hpp>

#include "backend/model/architecture_spec.h"
#include "backend/types/model_info.h"

namespace qs {

/// config.json of a model that came in another file format, as transformers writes it for the family. What was written
/// has been read back and describes the same computation.
/// @throws Error Unsupported when the family's configuration is not written here or cannot say what the model computes
nlohmann::ordered_json hugging_face_config(const ArchitectureSpec& spec, const ModelInfo& info);

}  // namespace qs
