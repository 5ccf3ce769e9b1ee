#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace qs {

/// Running statistics of the input of one linear layer, per input channel.
struct ActivationSums {
  at::Tensor absmax;               ///< f32 [in_features]
  at::Tensor sum, sum_of_squares;  ///< f64 [in_features]
  std::int64_t tokens = 0;

  bool empty() const { return tokens == 0; }
  ActivationSums& operator+=(const ActivationSums& other);
};

/// @param x  [tokens, in_features]
ActivationSums activation_sums(const at::Tensor& x);

}  // namespace qs
