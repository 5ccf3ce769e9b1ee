#pragma once

#include <vector>

#include "backend/methods/golden.h"

namespace qs {

/// Golden cases of evaluation rules (method "eval"): perplexity and continuation scores, random draws, text rules of
/// task scoring. To be handed to verify_golden as extra runners.
std::vector<GoldenRunner> golden_evaluation_runners();

}  // namespace qs
