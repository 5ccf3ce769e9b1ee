#include "backend/evaluation/python_random.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

namespace qs {
namespace {

constexpr std::size_t kWords = 624, kShift = 397;

int bit_length(std::uint64_t value) {
  int length = 0;
  for (; value; value >>= 1) ++length;
  return length;
}

/// PCG XSL-RR 128/64 with numpy's seeding.
class Pcg64 {
 public:
  explicit Pcg64(std::uint32_t seed) {
    const std::array<std::uint64_t, 4> words = seed_words(seed);
    const Wide start = (Wide{words[0]} << 64) | words[1];
    increment_ = (((Wide{words[2]} << 64) | words[3]) << 1) | 1;
    state_ = 0;
    step();
    state_ += start;
    step();
  }

  std::uint32_t next_u32() {
    if (has_half_) {
      has_half_ = false;
      return half_;
    }
    step();
    const auto high = static_cast<std::uint64_t>(state_ >> 64), low = static_cast<std::uint64_t>(state_);
    const std::uint64_t mixed = high ^ low;
    const unsigned turn = static_cast<unsigned>(high >> 58);
    const std::uint64_t word = (mixed >> turn) | (mixed << ((64 - turn) & 63));
    has_half_ = true;
    half_ = static_cast<std::uint32_t>(word >> 32);
    return static_cast<std::uint32_t>(word);
  }

 private:
  __extension__ using Wide = unsigned __int128;

  void step() {
    constexpr Wide kMultiplier = (Wide{0x2360ED051FC65DA4ULL} << 64) | 0x4385DF649FCCF645ULL;
    state_ = state_ * kMultiplier + increment_;
  }

  static std::array<std::uint64_t, 4> seed_words(std::uint32_t seed) {
    std::array<std::uint32_t, 4> pool{};
    std::uint32_t constant = 0x43b0d7e5u;
    const auto hash = [&constant](std::uint32_t value) {
      value ^= constant;
      constant *= 0x931e8875u;
      value *= constant;
      return value ^ (value >> 16);
    };
    for (std::size_t i = 0; i < pool.size(); ++i) pool[i] = hash(i == 0 ? seed : 0);
    for (std::size_t from = 0; from < pool.size(); ++from) {
      for (std::size_t to = 0; to < pool.size(); ++to) {
        if (from == to) continue;
        const std::uint32_t mixed = 0xca01f9ddu * pool[to] - 0x4973f715u * hash(pool[from]);
        pool[to] = mixed ^ (mixed >> 16);
      }
    }
    constant = 0x8b51f9ddu;
    std::array<std::uint64_t, 4> words{};
    for (std::size_t i = 0; i < 8; ++i) {
      std::uint32_t value = pool[i % 4] ^ constant;
      constant *= 0x58f38dedu;
      value *= constant;
      value ^= value >> 16;
      words[i / 2] |= static_cast<std::uint64_t>(value) << (i % 2 ? 32 : 0);
    }
    return words;
  }

  Wide state_ = 0, increment_ = 0;
  bool has_half_ = false;
  std::uint32_t half_ = 0;
};

}  // namespace

PythonRandom::PythonRandom(std::uint64_t seed) {
  std::vector<std::uint32_t> key = {static_cast<std::uint32_t>(seed)};
  if (seed >> 32) key.push_back(static_cast<std::uint32_t>(seed >> 32));

  state_[0] = 19650218u;
  for (std::size_t i = 1; i < kWords; ++i)
    state_[i] = 1812433253u * (state_[i - 1] ^ (state_[i - 1] >> 30)) + static_cast<std::uint32_t>(i);
  std::size_t i = 1, j = 0;
  const auto advance = [&] {
    if (++i >= kWords) {
      state_[0] = state_[kWords - 1];
      i = 1;
    }
  };
  for (std::size_t round = 0; round < std::max(kWords, key.size()); ++round) {
    state_[i] =
        (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1664525u)) + key[j] + static_cast<std::uint32_t>(j);
    advance();
    if (++j >= key.size()) j = 0;
  }
  for (std::size_t round = 0; round < kWords - 1; ++round) {
    state_[i] = (state_[i] ^ ((state_[i - 1] ^ (state_[i - 1] >> 30)) * 1566083941u)) - static_cast<std::uint32_t>(i);
    advance();
  }
  state_[0] = 0x80000000u;
}

std::uint32_t PythonRandom::next_u32() {
  if (index_ >= kWords) {
    for (std::size_t k = 0; k < kWords; ++k) {
      const std::uint32_t y = (state_[k] & 0x80000000u) | (state_[(k + 1) % kWords] & 0x7fffffffu);
      state_[k] = state_[(k + kShift) % kWords] ^ (y >> 1) ^ (y & 1u ? 0x9908b0dfu : 0u);
    }
    index_ = 0;
  }
  std::uint32_t y = state_[index_++];
  y ^= y >> 11;
  y ^= (y << 7) & 0x9d2c5680u;
  y ^= (y << 15) & 0xefc60000u;
  return y ^ (y >> 18);
}

std::uint64_t PythonRandom::bits(int count) {
  if (count <= 32) return next_u32() >> (32 - count);
  const std::uint64_t low = next_u32();
  return low | (static_cast<std::uint64_t>(next_u32() >> (64 - count)) << 32);
}

std::uint64_t PythonRandom::below(std::uint64_t limit) {
  if (limit == 0) return 0;
  const int count = bit_length(limit);
  std::uint64_t drawn = bits(count);
  while (drawn >= limit) drawn = bits(count);
  return drawn;
}

std::int64_t PythonRandom::randint(std::int64_t low, std::int64_t high) {
  return low + static_cast<std::int64_t>(below(static_cast<std::uint64_t>(high - low + 1)));
}

std::vector<std::int64_t> PythonRandom::sample(std::int64_t population, std::int64_t count) {
  std::vector<std::int64_t> result;
  std::int64_t set_size = 21;
  if (count > 5)
    set_size +=
        static_cast<std::int64_t>(std::pow(4.0, std::ceil(std::log(static_cast<double>(count) * 3.0) / std::log(4.0))));
  if (population <= set_size) {
    std::vector<std::int64_t> pool(static_cast<std::size_t>(population));
    std::iota(pool.begin(), pool.end(), 0);
    for (std::int64_t i = 0; i < count; ++i) {
      const auto j = static_cast<std::size_t>(below(static_cast<std::uint64_t>(population - i)));
      result.push_back(pool[j]);
      pool[j] = pool[static_cast<std::size_t>(population - i - 1)];
    }
    return result;
  }
  std::set<std::int64_t> taken;
  while (static_cast<std::int64_t>(result.size()) < count) {
    const auto drawn = static_cast<std::int64_t>(below(static_cast<std::uint64_t>(population)));
    if (taken.insert(drawn).second) result.push_back(drawn);
  }
  return result;
}

void PythonRandom::shuffle(std::vector<std::int64_t>& items) {
  for (std::size_t i = items.size(); i-- > 1;) std::swap(items[i], items[static_cast<std::size_t>(below(i + 1))]);
}

std::vector<std::int64_t> numpy_permutation(std::uint32_t seed, std::int64_t count) {
  Pcg64 generator(seed);
  std::vector<std::int64_t> items(static_cast<std::size_t>(count));
  std::iota(items.begin(), items.end(), 0);
  for (std::size_t i = items.size(); i-- > 1;) {
    const auto mask = static_cast<std::uint32_t>((std::uint64_t{1} << bit_length(i)) - 1);
    std::uint32_t drawn = generator.next_u32() & mask;
    while (drawn > i) drawn = generator.next_u32() & mask;
    std::swap(items[i], items[drawn]);
  }
  return items;
}

}  // namespace qs
