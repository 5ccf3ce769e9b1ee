#pragma once

#include <algorithm>
#include <chrono>
#include <vector>

namespace qs {

/// Median seconds of one call: at least five calls and a tenth of a second, after one warm-up call.
template <typename Call>
double median_seconds(Call&& call) {
  using Clock = std::chrono::steady_clock;
  call();
  std::vector<double> seconds;
  const auto begin = Clock::now();
  while (seconds.size() < 5 || (Clock::now() - begin < std::chrono::milliseconds(100) && seconds.size() < 2000)) {
    const auto start = Clock::now();
    call();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
  }
  std::nth_element(seconds.begin(), seconds.begin() + static_cast<std::ptrdiff_t>(seconds.size() / 2), seconds.end());
  return seconds[seconds.size() / 2];
}

}  // namespace qs
