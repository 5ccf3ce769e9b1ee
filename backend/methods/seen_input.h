#pragma once

#include <ATen/core/Tensor.h>

#include "backend/model/decoder.h"

namespace qs {

/// `x` as the product of a linear sees it: fake-quantized where the linear quantizes its input, else `x` itself.
/// @param x  [tokens, in_features]
at::Tensor seen_input(const LinearOp& linear, const at::Tensor& x);

}  // namespace qs
