#pragma once

#include <string>

#include "backend/types/capture_info.h"

namespace qs {

/// The rotation and score rules of each layer as JSON: {"kinds": [{"rope": {...}, "score_scale": ..}, ..], "layers":
/// [index of the kind, ..]}. The field names are those of RopeSpec and AttentionRules.
std::string attention_text(const CaptureInfo& info);

/// Fills `rope`, `layer_ropes` and `layer_rules`. @return false when the text is no description of info.layers layers
bool read_attention(const std::string& text, CaptureInfo& info);

}  // namespace qs
