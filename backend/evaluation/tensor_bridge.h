#pragma once

#include <ATen/core/Tensor.h>

#include "backend/types/tensor_view.h"

namespace qs {

/// The view's memory as a tensor, f32; shares the data and keeps it alive. Not to be written to.
at::Tensor as_tensor(const TensorView& view);
/// Dense f32 copy or share of `tensor` that keeps it alive.
TensorView as_view(const at::Tensor& tensor);

}  // namespace qs
