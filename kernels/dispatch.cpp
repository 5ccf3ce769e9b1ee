#include "kernels/dispatch.h"

#include <cstdlib>
#include <cstring>

#include "kernels/instruction_sets.h"

namespace qs::kernels {

namespace {

constexpr KernelSet kScalar = {
    .id = SetName::Scalar,
    .name = "scalar",
    .vnni = false,
    .f16_to_f32 = f16_to_f32_scalar,
    .f32_to_f16 = f32_to_f16_scalar,
    .quantize_rows = quantize_rows_scalar,
    .quantize_columns = quantize_columns_scalar,
    .decode_fields = decode_fields_scalar,
    .key_scores = key_scores_scalar,
    .value_sums = value_sums_scalar,
    .exp_sum = exp_sum_scalar,
    .rotate_rows = rotate_rows_scalar,
    .decode_grouped = decode_grouped_scalar,
    .nearest_levels = nearest_levels_scalar,
    .packed_gemv = packed_gemv_scalar,
    .dense_gemv = dense_gemv_scalar,
    .lut_gemm = lut_gemm_scalar,
    .quantize_activations = quantize_activations_scalar,
    .int8_gemm = int8_gemm_scalar,
    .spqr_gemv = spqr_gemv_scalar,
    .accumulate_sums = accumulate_sums_scalar,
    .expect_weights = expect_weights_scalar,
    .quantize_columns_in_order = quantize_columns_in_order_scalar,
};

#if defined(__x86_64__)
constexpr KernelSet kAvx2 = {
    .id = SetName::Avx2,
    .name = "avx2",
    .vnni = false,
    .f16_to_f32 = f16_to_f32_avx2,
    .f32_to_f16 = f32_to_f16_avx2,
    .quantize_rows = quantize_rows_avx2,
    .quantize_columns = quantize_columns_avx2,
    .decode_fields = decode_fields_avx2,
    .key_scores = key_scores_avx2,
    .value_sums = value_sums_avx2,
    .exp_sum = exp_sum_avx2,
    .rotate_rows = rotate_rows_avx2,
    .decode_grouped = decode_grouped_avx2,
    .nearest_levels = nearest_levels_avx2,
    .packed_gemv = packed_gemv_avx2,
    .dense_gemv = dense_gemv_avx2,
    .lut_gemm = lut_gemm_avx2,
    .quantize_activations = quantize_activations_avx2,
    .int8_gemm = int8_gemm_avx2,
    .spqr_gemv = spqr_gemv_avx2,
    .accumulate_sums = accumulate_sums_avx2,
    .expect_weights = expect_weights_avx2,
    .quantize_columns_in_order = quantize_columns_in_order_avx2,
};

constexpr KernelSet kAvx512 = {
    .id = SetName::Avx512,
    .name = "avx512",
    .vnni = false,
    .f16_to_f32 = f16_to_f32_avx512,
    .f32_to_f16 = f32_to_f16_avx512,
    .quantize_rows = quantize_rows_avx512,
    .quantize_columns = quantize_columns_avx512,
    .decode_fields = decode_fields_avx2,
    .key_scores = key_scores_avx512,
    .value_sums = value_sums_avx512,
    .exp_sum = exp_sum_avx512,
    .rotate_rows = rotate_rows_avx512,
    .decode_grouped = decode_grouped_avx512,
    .nearest_levels = nearest_levels_avx512,
    .packed_gemv = packed_gemv_avx512,
    .dense_gemv = dense_gemv_avx512,
    .lut_gemm = lut_gemm_avx512,
    .quantize_activations = quantize_activations_avx512,
    .int8_gemm = int8_gemm_avx512,
    .spqr_gemv = spqr_gemv_avx512,
    .accumulate_sums = accumulate_sums_avx512,
    .expect_weights = expect_weights_avx512,
    .quantize_columns_in_order = quantize_columns_in_order_avx512,
};

constexpr KernelSet kAvx512Vnni = {
    .id = SetName::Avx512,
    .name = "avx512",
    .vnni = true,
    .f16_to_f32 = f16_to_f32_avx512,
    .f32_to_f16 = f32_to_f16_avx512,
    .quantize_rows = quantize_rows_avx512,
    .quantize_columns = quantize_columns_avx512,
    .decode_fields = decode_fields_avx2,
    .key_scores = key_scores_vnni,
    .value_sums = value_sums_vnni,
    .exp_sum = exp_sum_avx512,
    .rotate_rows = rotate_rows_avx512,
    .decode_grouped = decode_grouped_avx512,
    .nearest_levels = nearest_levels_avx512,
    .packed_gemv = packed_gemv_avx512,
    .dense_gemv = dense_gemv_avx512,
    .lut_gemm = lut_gemm_avx512,
    .quantize_activations = quantize_activations_avx512,
    .int8_gemm = int8_gemm_vnni,
    .spqr_gemv = spqr_gemv_avx512,
    .accumulate_sums = accumulate_sums_avx512,
    .expect_weights = expect_weights_avx512,
    .quantize_columns_in_order = quantize_columns_in_order_avx512,
};
#endif

constexpr SetName kAll[] = {SetName::Scalar, SetName::Avx2, SetName::Avx512};

const char* name_of(SetName id) noexcept {
  switch (id) {
    case SetName::Scalar:
      return "scalar";
    case SetName::Avx2:
      return "avx2";
    case SetName::Avx512:
      return "avx512";
  }
  return "";
}

struct Choice {
  const KernelSet* set = nullptr;
  std::string problem;
};

Choice choose() {
  const char* const forced = std::getenv("QUANTOSCOPE_KERNELS");
  if (forced == nullptr || *forced == '\0') {
    for (const SetName id : {SetName::Avx512, SetName::Avx2})
      if (const KernelSet* const set = kernel_set(id)) return {set, {}};
    return {&kScalar, {}};
  }
  std::string usable;
  for (const SetName id : kAll) {
    const KernelSet* const set = kernel_set(id);
    if (set != nullptr && std::strcmp(forced, name_of(id)) == 0) return {set, {}};
    if (set != nullptr) usable += (usable.empty() ? "" : ", ") + std::string(name_of(id));
  }
  for (const SetName id : kAll)
    if (std::strcmp(forced, name_of(id)) == 0)
      return {&kScalar, "QUANTOSCOPE_KERNELS asks for the kernel set '" + std::string(forced) +
                            "', which this processor does not have. Unset it or use one of: " + usable + "."};
  return {&kScalar, "QUANTOSCOPE_KERNELS is '" + std::string(forced) +
                        "', which is not a kernel set. Unset it or use one of: " + usable + "."};
}

const Choice& choice() {
  static const Choice chosen = choose();
  return chosen;
}

}  // namespace

const KernelSet& kernel_set() noexcept { return *choice().set; }

const char* kernel_set_name() noexcept { return kernel_set().name; }

std::string kernel_set_problem() { return choice().problem; }

const KernelSet* kernel_set(SetName id) noexcept {
  if (id == SetName::Scalar) return &kScalar;
#if defined(__x86_64__)
#if defined(__clang__)
  const bool f16c = true;  // its builtin lacks the name; every processor with AVX2 has it
#else
  const bool f16c = __builtin_cpu_supports("f16c");
#endif
  if (id == SetName::Avx2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && f16c) return &kAvx2;
  if (id == SetName::Avx512 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
    return __builtin_cpu_supports("avx512vnni") ? &kAvx512Vnni : &kAvx512;
#endif
  return nullptr;
}

}  // namespace qs::kernels
