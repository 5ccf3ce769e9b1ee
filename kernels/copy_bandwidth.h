#pragma once

#include <cstdint>

namespace qs::kernels {

/// Copies a buffer larger than the caches several times and returns the best rate, bytes read plus bytes written a
/// second. Blocks the calling threads for about a second. 0 when the buffers cannot be allocated.
/// @param threads  how many copy at once, each its own part
double measure_copy_bandwidth(int threads, std::int64_t buffer_bytes = std::int64_t{256} << 20) noexcept;

}  // namespace qs::kernels
