#pragma once

#include <ATen/core/Tensor.h>

namespace qs {

/// Whether this LibTorch multiplies f16 matrices on the CPU.
bool half_products_work();

/// x Wᵀ + bias in the type of x. Up to eight tokens are multiplied by our own kernels, which read the weight once in
/// its own type; more by LibTorch (f16 widened where it cannot multiply f16). `bias` may be undefined.
at::Tensor linear_product(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace qs
