#pragma once

#include <ATen/core/Tensor.h>

#include "backend/methods/affine_weight.h"

namespace qs {

/// Symmetric absmax quantizer (A1 of weights specification section 3): s = max(max|v|, 1e-5) / P, P = 2^(bits-1) - 1,
/// no clamp. Codes are offset by P, so that value = scale * (code - zero_point) with zero_point = P for every row.
AffineRows quantize_absmax(const at::Tensor& rows, int bits, ScaleType scale_type);

/// The same with every elementary step rounded to the type of `rows`, as the published code computes; the result has
/// that type. For comparison only: it shows why scales are kept in f32.
at::Tensor fake_quantize_absmax_native(const at::Tensor& rows, int bits);

/// Scale of A1, f32 [rows, 1].
at::Tensor absmax_scale(const at::Tensor& rows, int bits);

}  // namespace qs
