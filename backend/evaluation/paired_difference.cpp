#include <span>

#include "backend/evaluation/evaluate.h"
#include "backend/metrics.h"
#include "backend/types/error.h"

namespace qs {
namespace {

const TaskResult& find_task(const EvalReport& report, const std::string& task) {
  for (const TaskResult& result : report.tasks) {
    if (result.task == task) return result;
  }
  throw Error(ErrorCode::InvalidArgument,
              "The run of " + report.variant.text() + " has no task '" + task + "' to compare.");
}

}  // namespace

PairedDifference paired_difference(const EvalReport& a, const EvalReport& b, const std::string& task) {
  if (a.fingerprint != b.fingerprint) {
    std::string what;
    for (const std::string& difference : a.protocol.differences(b.protocol))
      what += (what.empty() ? "" : "; ") + difference;
    throw Error(ErrorCode::InvalidArgument,
                "These runs were made under different protocols and cannot be compared: " + what + ".");
  }
  const TaskResult& first = find_task(a, task);
  const TaskResult& second = find_task(b, task);
  return paired_difference(std::span(first.per_item), std::span(second.per_item));
}

}  // namespace qs
