#pragma once

#include "backend/types/eval_result.h"

namespace qs::analysis {

/// The difference of one task on the scale of its metric. For perplexity the items are mean NLLs of windows, so the
/// interval of their difference d is carried over as perplexity(a) * (exp(d) - 1).
/// @throws Error InvalidArgument as paired_difference, or when the tasks are not the same
PairedDifference task_difference(const TaskResult& a, const TaskResult& b);

}  // namespace qs::analysis
