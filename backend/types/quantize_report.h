#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/types/generation.h"

namespace qs {

/// What a method did to one tensor. Error measures compare with the original in f32; relative_error is
/// ||x - x'||_F / ||x||_F, and the self-check fields are counted on the very codes that were made.
struct TensorReport {
  std::string name;
  std::vector<std::int64_t> shape;
  double mse = 0.0, relative_error = 0.0, sqnr_db = 0.0, cosine = 0.0, max_abs_error = 0.0;
  double effective_bits = 16.0;
  std::int64_t packed_bytes = 0;
  double changed_fraction = 0.0;    ///< elements whose value changed
  double saturated_fraction = 0.0;  ///< elements at the lowest or highest code
  std::int64_t levels_used = 0, levels = 0;
  std::int64_t tokens_full_precision = 0;  ///< KV methods: tokens left in full precision
  CacheStats parts;                        ///< KV methods: bytes by part
  double functional_error =
      0.0;  ///< relative error of softmax(QK')V' or of the layer output; NaN when it was not computed
  std::string functional_metric;  ///< what functional_error measures
  std::vector<std::string> warnings;
};

}  // namespace qs
