#pragma once

#include <vector>

#include "backend/types/bench_result.h"
#include "backend/types/job.h"

namespace qs {

/// One token times a weight in packed codes (2, 3, 4 bits), in bit planes (LUT-GEMM) and in floating point, at the
/// sizes of the LUT-GEMM paper that fit in memory (weights specification 16.4), on one thread and on `threads`. Results
/// of the packed forms are compared with the scalar kernels' first.
/// @param bandwidth  copy bandwidth on one thread and on `threads`, bytes a second
/// @throws Error Internal when a kernel computes something else than its scalar form
std::vector<GemvBenchRow> bench_gemv(int threads, const double (&bandwidth)[2], const JobContext& job);

}  // namespace qs
