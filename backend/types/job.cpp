#include "backend/types/job.h"

#include <algorithm>

namespace qs {

void JobContext::checkpoint(std::int64_t done, std::int64_t total, std::string_view step) const {
  if (stop_.stop_requested()) throw Cancelled{};
  if (!report_) return;
  const double fraction =
      total > 0 ? std::clamp(static_cast<double>(done) / static_cast<double>(total), 0.0, 1.0) : 1.0;
  report_(from_ + fraction * (to_ - from_), step);
}

JobContext JobContext::part(double from, double to) const {
  JobContext slice = *this;
  slice.from_ = from_ + from * (to_ - from_);
  slice.to_ = from_ + to * (to_ - from_);
  return slice;
}

}  // namespace qs
