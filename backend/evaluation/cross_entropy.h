#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qs {

/// Negative log-likelihood in nats of ids[t + 1] given logits[t], for t = 0 .. tokens - 2.
/// @param logits  [tokens, vocab_size]; softmax in f32
std::vector<double> token_nll(const at::Tensor& logits, const std::vector<std::int64_t>& ids);

/// Means over the predicted tokens of one window.
struct WindowScores {
  double nll = 0.0;   ///< nats a token
  double kl = 0.0;    ///< KL(reference || variant), nats a token
  double top1 = 0.0;  ///< share of positions with the same first choice
};
/// @param reference  logits of the same window in full precision; undefined: kl and top1 stay 0
WindowScores score_window(const at::Tensor& logits, const at::Tensor& reference, const std::vector<std::int64_t>& ids);

/// A continuation scored after a context (weights specification 13.1).
struct ContinuationScore {
  double log_likelihood = 0.0;  ///< nats, summed
  bool greedy = false;          ///< every token of it is the first choice
};
/// @param logits  [tokens, vocab_size]; row t predicts token t + 1; the continuation is the last tokens of the row
ContinuationScore score_continuation(const at::Tensor& logits, const std::vector<std::int64_t>& continuation);

}  // namespace qs
