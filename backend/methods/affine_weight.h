#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "backend/model/affine_range.h"

namespace qs {

/// Type in which the scales of weights are kept.
enum class ScaleType { F16, BF16, F32 };
ScaleType parse_scale_type(const std::string& id);  ///< "f16", "bf16", "f32"
std::int64_t scale_bytes(ScaleType type);
/// `scale` as it is stored, widened to f32. @throws Error InvalidArgument when a scale does not fit the type
at::Tensor stored_scale(const at::Tensor& scale, ScaleType type);

/// Affine quantizer whose range contains zero and whose zero point is an integer (weights specification 1.3).
struct AffineQuantizer {
  int bits = 4;
  bool symmetric = false;
  bool mse_range = false;  ///< R6 instead of minimum and maximum
  ScaleType scale_type = ScaleType::F16;
  bool store_then_quantize = false;  ///< codes are computed from the rounded scale
  bool compat_reference = false;  ///< symmetric rows without a negative value keep lo = 0, as the published code does
};

/// value = scale * (code - zero_point), one scale and zero point a row.
struct AffineRows {
  at::Tensor codes;       ///< uint8 [rows, group]
  at::Tensor scale;       ///< f32 [rows, 1], as stored
  at::Tensor zero_point;  ///< f32 [rows, 1], integers in 0 .. 2^bits - 1
  at::Tensor values;      ///< f32 [rows, group]
};

/// Scale (not rounded) and zero point of each row by R1 to R4, or R6. @param rows  [rows, group]
AffineRange affine_weight_range(const at::Tensor& rows, const AffineQuantizer& quantizer);

/// R1 to R6. A row of zeros gets the range [-1, 1] and reconstructs to zeros.
/// @param rows  [rows, group], finite, any float type; computed in f32
AffineRows quantize_affine(const at::Tensor& rows, const AffineQuantizer& quantizer);

}  // namespace qs
