#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/gemv.h"

namespace qs {

/// Whether this LibTorch multiplies f16 matrices on the CPU.
bool half_products_work();

/// Tokens that share one pass over a weight in the kernel; more are a matrix product's business.
inline constexpr std::int64_t kMaxGemvTokens = 8;

/// x Wᵀ for one or a few tokens: reads the weight once, in its own type, and sums in f32.
/// @param x  [tokens, in_features]; weight [out_features, in_features]; the result has the type of x
at::Tensor few_token_product(const at::Tensor& x, const void* weight, kernels::DenseType type,
                             std::int64_t out_features, std::int64_t in_features);

/// x Wᵀ + bias in the type of x. Up to eight tokens are multiplied by our own kernels, which read the weight once in
/// its own type; more by LibTorch (f16 widened where it cannot multiply f16). `bias` may be undefined.
at::Tensor linear_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace qs
