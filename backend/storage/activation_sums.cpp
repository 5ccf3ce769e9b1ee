#include "backend/storage/activation_sums.h"

#include <ATen/ATen.h>

namespace qs {

ActivationSums& ActivationSums::operator+=(const ActivationSums& other) {
  if (other.empty()) return *this;
  if (empty()) return *this = other;
  absmax = at::maximum(absmax, other.absmax);
  sum = sum + other.sum;
  sum_of_squares = sum_of_squares + other.sum_of_squares;
  tokens += other.tokens;
  return *this;
}

ActivationSums activation_sums(const at::Tensor& x) {
  const at::Tensor values = x.to(at::kCPU, at::kFloat);
  return {values.abs().amax(0), values.sum(at::IntArrayRef{0}, false, at::kDouble),
          values.square().sum(at::IntArrayRef{0}, false, at::kDouble), values.size(0)};
}

}  // namespace qs
