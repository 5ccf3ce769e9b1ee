#include "kernels/copy_bandwidth.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace qs::kernels {

double measure_copy_bandwidth(int threads, std::int64_t buffer_bytes) noexcept {
  if (threads < 1 || buffer_bytes < threads) return 0.0;
  const auto size = static_cast<std::size_t>(buffer_bytes);
  auto* const from = static_cast<unsigned char*>(std::malloc(size));
  auto* const to = static_cast<unsigned char*>(std::malloc(size));
  double best = 0.0;
  if (from != nullptr && to != nullptr) {
    std::memset(from, 1, size);
    std::memset(to, 2, size);
    const std::size_t part = size / static_cast<std::size_t>(threads);
    for (int repeat = 0; repeat < 8; ++repeat) {
      const auto begin = std::chrono::steady_clock::now();
      try {
        std::vector<std::jthread> others;
        for (int i = 1; i < threads; ++i)
          others.emplace_back([=] {
            std::memcpy(to + part * static_cast<std::size_t>(i), from + part * static_cast<std::size_t>(i), part);
          });
        std::memcpy(to, from, part);
      } catch (const std::system_error&) {
        break;
      } catch (const std::bad_alloc&) {
        break;
      }
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
      const double moved = 2.0 * static_cast<double>(part) * threads;
      if (seconds > 0.0 && moved / seconds > best) best = moved / seconds;
    }
  }
  std::free(from);
  std::free(to);
  return best;
}

}  // namespace qs::kernels
