#pragma once

#include "kernels/affine.h"
#include "kernels/bit_fields.h"
#include "kernels/column_sweep.h"
#include "kernels/gemv.h"
#include "kernels/kv_attention.h"
#include "kernels/kv_rows.h"
#include "kernels/lut_gemm.h"
#include "kernels/spqr.h"
#include "kernels/table_codes.h"

/// What the instruction-set files supply to dispatch.cpp. Semantics: the functions ending in _scalar.
#define QS_DECLARE_KERNELS(set)                                                                                    \
  void f16_to_f32_##set(const std::uint16_t* from, float* to, std::int64_t count) noexcept;                        \
  void f32_to_f16_##set(const float* from, std::uint16_t* to, std::int64_t count) noexcept;                        \
  void quantize_rows_##set(const RowGroups& args) noexcept;                                                        \
  void quantize_columns_##set(const ColumnGroups& args) noexcept;                                                  \
  void key_scores_##set(const TileArgs& tile, const float* query, float* scores) noexcept;                         \
  void value_sums_##set(const TileArgs& tile, const float* weights, float* out) noexcept;                          \
  float exp_sum_##set(float* scores, std::int64_t count, float max) noexcept;                                      \
  void rotate_rows_##set(const RotateRows& args) noexcept;                                                         \
  void grouped_scores_##set(const TileArgs& tile, const float* query, float* scores) noexcept;                     \
  void grouped_sums_##set(const TileArgs& tile, const float* weights, float* out) noexcept;                        \
  void decode_grouped_##set(const Segment& segment, std::int64_t begin, std::int64_t count, std::int64_t head_dim, \
                            float* rows, std::int64_t row_stride) noexcept;                                        \
  void table_scores_##set(const TileArgs& tile, const float* query, float* scores) noexcept;                       \
  void table_sums_##set(const TileArgs& tile, const float* weights, float* out) noexcept;                          \
  void nearest_levels_##set(const float* y, std::int64_t count, const float* levels, int level_count,              \
                            std::uint8_t* codes) noexcept;                                                         \
  void packed_gemv_##set(const PackedWeight& weight, const GemvArgs& args) noexcept;                               \
  void dense_gemv_##set(DenseType type, const void* weight, std::int64_t in_features, std::int64_t out_features,   \
                        const GemvArgs& args) noexcept;                                                            \
  void lut_gemm_##set(const BitPlaneWeight& weight, const GemvArgs& args, LutArithmetic arithmetic) noexcept;      \
  void quantize_activations_##set(const float* x, std::int64_t tokens, std::int64_t in_features, int bits,         \
                                  ActivationRange range, const QuantizedActivations& out) noexcept;                \
  void int8_gemm_##set(const Int8Weight& weight, const QuantizedActivations& x, std::int64_t tokens,               \
                       std::int64_t row_begin, std::int64_t row_end, float* y) noexcept;                           \
  void spqr_gemv_##set(const SpqrWeight& weight, const GemvArgs& args, const float* group_sums) noexcept;          \
  void accumulate_sums_##set(const SumTerms& args) noexcept;                                                       \
  void expect_weights_##set(const SweepTile& tile, float* expected) noexcept;                                      \
  void quantize_columns_in_order_##set(const SweepTile& tile, const SweepGrid& grid) noexcept;

namespace qs::kernels {

QS_DECLARE_KERNELS(avx2)
QS_DECLARE_KERNELS(avx512)

// Bound by loads and stores of eight fields: the wider sets use it too.
void decode_fields_avx2(const FieldRun& run, float* x) noexcept;

// With AVX512-VNNI: the Fixed16 forms of packed segments (everything else goes to the avx512 functions), and the
// integer GEMM.
void key_scores_vnni(const TileArgs& tile, const float* query, float* scores) noexcept;
void value_sums_vnni(const TileArgs& tile, const float* weights, float* out) noexcept;
void int8_gemm_vnni(const Int8Weight& weight, const QuantizedActivations& x, std::int64_t tokens,
                    std::int64_t row_begin, std::int64_t row_end, float* y) noexcept;

}  // namespace qs::kernels
