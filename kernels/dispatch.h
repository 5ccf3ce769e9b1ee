#pragma once

#include <string>

#include "kernels/affine.h"
#include "kernels/bit_fields.h"
#include "kernels/column_sweep.h"
#include "kernels/float_formats.h"
#include "kernels/gemv.h"
#include "kernels/kv_attention.h"
#include "kernels/kv_rows.h"
#include "kernels/lut_gemm.h"
#include "kernels/spqr.h"
#include "kernels/table_codes.h"

namespace qs::kernels {

enum class SetName { Scalar, Avx2, Avx512 };

/// The kernels of one instruction set. Codes are equal in all sets; floats differ by the order of their sums.
struct KernelSet {
  SetName id = SetName::Scalar;
  const char* name = nullptr;  ///< "scalar", "avx2", "avx512"
  bool vnni = false;           ///< integer dot instructions are used
  void (*f16_to_f32)(const std::uint16_t* from, float* to, std::int64_t count) noexcept = nullptr;
  void (*f32_to_f16)(const float* from, std::uint16_t* to, std::int64_t count) noexcept = nullptr;
  void (*quantize_rows)(const RowGroups& args) noexcept = nullptr;
  void (*quantize_columns)(const ColumnGroups& args) noexcept = nullptr;
  DecodeFields decode_fields = nullptr;
  KeyScores key_scores = nullptr;
  ValueSums value_sums = nullptr;
  ExpSum exp_sum = nullptr;
  Rotate rotate_rows = nullptr;
  DecodeGrouped decode_grouped = nullptr;
  NearestLevels nearest_levels = nullptr;
  PackedGemv packed_gemv = nullptr;
  DenseGemv dense_gemv = nullptr;
  LutGemm lut_gemm = nullptr;
  QuantizeActivations quantize_activations = nullptr;
  Int8Gemm int8_gemm = nullptr;
  SpqrGemv spqr_gemv = nullptr;
  AccumulateSums accumulate_sums = nullptr;
  ExpectWeights expect_weights = nullptr;
  QuantizeColumnsInOrder quantize_columns_in_order = nullptr;
};

/// The set in use, chosen once: the best this CPU has, or the one that the environment variable QUANTOSCOPE_KERNELS
/// names (scalar, avx2, avx512). When that name is unknown or the CPU lacks it, this is the scalar set and
/// kernel_set_problem() says why: programs print it and refuse to start.
const KernelSet& kernel_set() noexcept;
const char* kernel_set_name() noexcept;
/// Empty when QUANTOSCOPE_KERNELS is unset or was followed.
std::string kernel_set_problem();
/// One set explicitly; null when this CPU (or this build) lacks it.
const KernelSet* kernel_set(SetName id) noexcept;

}  // namespace qs::kernels
