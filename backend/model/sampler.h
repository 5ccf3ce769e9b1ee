#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "backend/types/generation.h"

namespace qs {

/// @throws Error InvalidArgument naming the option, its range and what was given
void check_sampling(const SamplingOptions& options);

/// One token that may be drawn.
struct SamplingChoice {
  std::int64_t id = 0;
  double probability = 0.0;
};

/// Chooses tokens. Its generator is its own, so the same seed and equal logits give the same ids in every pane and
/// program.
class Sampler {
 public:
  /// @throws Error as check_sampling
  explicit Sampler(const SamplingOptions& options);

  /// What `next` draws from, descending by probability: repetition penalty (over `history`; positive logits are
  /// divided, negative ones multiplied), temperature, top-k, top-p (the fewest tokens that reach it), min-p (relative
  /// to the likeliest), then renormalized. Equal logits are ordered by id. One entry when greedy.
  /// @param logits   f32 [vocab_size]
  /// @param history  prompt and generated ids
  /// @throws Error Internal when no logit is finite
  std::vector<SamplingChoice> distribution(std::span<const float> logits, std::span<const std::int64_t> history) const;

  std::int64_t next(std::span<const float> logits, std::span<const std::int64_t> history);

 private:
  SamplingOptions options_;
  std::mt19937_64 generator_;
};

/// Natural logarithm of the softmax of `logits` at `id`.
double log_probability(std::span<const float> logits, std::int64_t id);

/// The `count` likeliest ids with their probabilities under the plain softmax, descending.
std::vector<SamplingChoice> likeliest(std::span<const float> logits, std::size_t count);

}  // namespace qs
