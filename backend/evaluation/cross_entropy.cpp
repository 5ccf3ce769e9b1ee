#include "backend/evaluation/cross_entropy.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace qs {
namespace {

constexpr std::int64_t kRows = 256;  // positions whose distributions are held at once

at::Tensor ids_tensor(const std::vector<std::int64_t>& ids) {
  return at::from_blob(const_cast<std::int64_t*>(ids.data()), {static_cast<std::int64_t>(ids.size())}, at::kLong)
      .clone();
}

}  // namespace

std::vector<double> token_nll(const at::Tensor& logits, const std::vector<std::int64_t>& ids) {
  const auto predictions = static_cast<std::int64_t>(ids.size()) - 1;
  const at::Tensor targets = ids_tensor(ids);
  std::vector<double> nll;
  for (std::int64_t begin = 0; begin < predictions; begin += kRows) {
    const std::int64_t rows = std::min(kRows, predictions - begin);
    const at::Tensor log_p = at::log_softmax(logits.narrow(0, begin, rows).to(at::kFloat), -1);
    const at::Tensor picked =
        log_p.gather(1, targets.narrow(0, begin + 1, rows).unsqueeze(1)).squeeze(1).to(at::kDouble).contiguous();
    const double* values = picked.data_ptr<double>();
    for (std::int64_t row = 0; row < rows; ++row) nll.push_back(-values[row]);
  }
  return nll;
}

WindowScores score_window(const at::Tensor& logits, const at::Tensor& reference, const std::vector<std::int64_t>& ids) {
  const auto predictions = static_cast<std::int64_t>(ids.size()) - 1;
  WindowScores scores;
  if (predictions <= 0) return scores;
  for (const double nll : token_nll(logits, ids)) scores.nll += nll;
  if (reference.defined()) {
    for (std::int64_t begin = 0; begin < predictions; begin += kRows) {
      const std::int64_t rows = std::min(kRows, predictions - begin);
      const at::Tensor p_logits = reference.narrow(0, begin, rows).to(at::kFloat),
                       q_logits = logits.narrow(0, begin, rows).to(at::kFloat);
      const at::Tensor log_p = at::log_softmax(p_logits, -1), log_q = at::log_softmax(q_logits, -1);
      scores.kl += (log_p.exp() * (log_p - log_q)).sum(-1).to(at::kDouble).sum().item<double>();
      scores.top1 += at::eq(p_logits.argmax(-1), q_logits.argmax(-1)).sum().item<double>();
    }
  }
  const auto count = static_cast<double>(predictions);
  return {scores.nll / count, scores.kl / count, scores.top1 / count};
}

ContinuationScore score_continuation(const at::Tensor& logits, const std::vector<std::int64_t>& continuation) {
  const auto count = static_cast<std::int64_t>(continuation.size());
  const at::Tensor rows = logits.narrow(0, logits.size(0) - 1 - count, count).to(at::kFloat);
  const at::Tensor ids = ids_tensor(continuation);
  ContinuationScore score;
  score.log_likelihood = at::log_softmax(rows, -1).gather(1, ids.unsqueeze(1)).to(at::kDouble).sum().item<double>();
  score.greedy = at::eq(rows.argmax(-1), ids).all().item<bool>();
  return score;
}

}  // namespace qs
