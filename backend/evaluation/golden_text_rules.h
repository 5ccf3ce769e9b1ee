#pragma once

#include "backend/methods/golden.h"

namespace qs {

/// The case eval/text_rules: strings exactly, numbers to 1e-6 of their size.
GoldenOutput run_golden_text_rules(const GoldenCase& golden);

}  // namespace qs
