#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace qs {

/// CPython's random.Random: MT19937 seeded by init_by_array with an integer, so that published draws are repeated.
class PythonRandom {
 public:
  explicit PythonRandom(std::uint64_t seed);
  std::uint32_t next_u32();
  std::uint64_t bits(int count);                              ///< getrandbits, 1 to 64
  std::uint64_t below(std::uint64_t limit);                   ///< uniform in 0 .. limit - 1, by rejection
  std::int64_t randint(std::int64_t low, std::int64_t high);  ///< both ends included
  std::vector<std::int64_t> sample(std::int64_t population, std::int64_t count);  ///< of range(population)
  void shuffle(std::vector<std::int64_t>& items);

 private:
  std::array<std::uint32_t, 624> state_{};
  std::size_t index_ = 624;
};

/// numpy.random.default_rng(seed).permutation(count): PCG64 seeded through SeedSequence.
std::vector<std::int64_t> numpy_permutation(std::uint32_t seed, std::int64_t count);

}  // namespace qs
