#pragma once

#include <ATen/core/Tensor.h>

#include "backend/methods/kvquant.h"

namespace qs {

/// The token matrix [T, C] of a layer, which of its elements are outliers, and what normalises the rest (N1):
/// y = (x - middle) / half. Reference path (KV specification 8.2, 8.3).
struct TokenMatrix {
  at::Tensor x, outlier;          ///< f32, bool [T, C]
  at::Tensor middle, half;        ///< f32 [1, C] (keys) or [T, 1] (values)
  at::Tensor normalised() const;  ///< y; 0 where half is 0
};

/// Static thresholds a channel: an outlier lies outside of them.
TokenMatrix key_matrix(const at::Tensor& x, const NuqCoding& coding, const KvquantSettings& settings);
/// Thresholds a token: an outlier lies on or outside the quantiles; bounds are those of the other elements and of the
/// median.
TokenMatrix value_matrix(const at::Tensor& x, const KvquantSettings& settings);

}  // namespace qs
