#pragma once

namespace qs {

/// Sets how many threads LibTorch computes with; 0 or less: as many as the process may use. To be called once at start.
void set_threads(int threads);
int threads();

}  // namespace qs
