#include "analysis/task_difference.h"

#include <cmath>

#include "backend/metrics.h"
#include "backend/types/error.h"

namespace qs::analysis {

PairedDifference task_difference(const TaskResult& a, const TaskResult& b) {
  if (a.task != b.task || a.metric != b.metric) {
    throw Error(ErrorCode::InvalidArgument, "'" + a.task + "' (" + a.metric + ") and '" + b.task + "' (" + b.metric +
                                                ") are different tasks and have no difference.");
  }
  PairedDifference difference = paired_difference(a.per_item, b.per_item);
  if (a.metric != "perplexity") return difference;
  const auto scaled = [&](double d) { return a.value * std::expm1(d); };
  return {scaled(difference.mean), scaled(difference.low), scaled(difference.high), difference.n};
}

}  // namespace qs::analysis
