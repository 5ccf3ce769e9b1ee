#pragma once

#include <ATen/core/Tensor.h>

#include <string>

#include "backend/methods/affine_weight.h"
#include "backend/methods/weight_codes.h"
#include "backend/types/job.h"

namespace qs {

/// Binary-coding quantization (weights specification section 7; naver-aics/lut-gemm, arXiv:2206.09557):
/// w ~ sum over planes i of alpha_i * B_i + offset, B_i in {-1, +1}, one alpha vector for each group of a row  (B1)

/// How the signs of a round are chosen for given alphas: the nearest of all 2^bits sums, or plane by plane the sign of
/// what is left.
enum class BcqAssign { Nearest, Greedy };
BcqAssign parse_bcq_assign(const std::string& id);  ///< "nearest", "greedy"

struct BcqOptions {
  int bits = 4;                   ///< planes, 1 to 8
  std::int64_t group_size = 128;  ///< along the inputs; -1: the whole row
  int rounds = 30;                ///< 0: greedy alone; 1: refined greedy; more: alternating
  BcqAssign assign = BcqAssign::Nearest;
  ScaleType scale_type = ScaleType::F16;  ///< of alpha and offset as they are stored
};

/// A weight in planes: value[o, i] = sum over planes p of (bit p of code ? alpha_p : -alpha_p), p ascending, + offset.
struct BcqWeight {
  at::Tensor codes;   ///< uint8 [out_features, in_features], bit p is 1 where plane p is +1
  at::Tensor alpha;   ///< f32 [out_features, groups, bits], as stored; descending after a round of refinement
  at::Tensor offset;  ///< f32 [out_features, groups], as stored; undefined: 0
  at::Tensor values;  ///< f32 [out_features, in_features]
  int bits() const { return static_cast<int>(alpha.size(2)); }
  std::int64_t group_size() const { return codes.size(1) / alpha.size(1); }
};

/// Searches planes and alphas in f32, least squares in f64. Greedy start: B_i = sign(r) with sign(0) = +1,
/// alpha_i = mean|r|, r = r - alpha_i B_i. Each round solves (B^T B) alpha = B^T w exactly (least norm where it is
/// singular), sorts |alpha| in descending order and chooses the signs anew; a group whose codes stay is done. A group
/// of zeros gets alpha 0 and all signs +1. Codes come from the unrounded alphas, values from the stored ones.
/// @param weight  [out_features, in_features], any float type
/// @throws Error InvalidArgument naming row and column of a NaN or infinity, or the nearest group size that fits
BcqWeight bcq(const at::Tensor& weight, const BcqOptions& options, const std::string& name, const JobContext& job);

/// A uniform grid in planes, exactly: alpha_i = scale * 2^(i-1) / 2, B_i = 2 * bit - 1, offset = scale * (Q/2 - z) (B2)
/// @param codes  of `bits` bits in the original column order, groups dividing the row
/// @throws Error InvalidArgument for codes in processing order
BcqWeight bcq_from_codes(const WeightCodes& codes, int bits, ScaleType scale_type, const std::string& name);

/// B1. @param alpha [out_features, groups, bits], offset [out_features, groups] or undefined, both f32
at::Tensor bcq_values(const at::Tensor& codes, const at::Tensor& alpha, const at::Tensor& offset);

/// One value of B1, summed as every reader of the planes does: alphas `stride` apart.
inline float bcq_value(unsigned code, const float* alpha, int bits, std::int64_t stride, float offset) {
  float value = 0.0F;
  for (int plane = 0; plane < bits; ++plane)
    value += (code >> plane & 1U) != 0 ? alpha[plane * stride] : -alpha[plane * stride];
  return value + offset;
}

/// Bits a weight: bits * (1 + scale / group), with an offset + scale / group.
double bcq_effective_bits(int bits, std::int64_t group_size, std::int64_t in_features, ScaleType scale_type,
                          bool with_offset);

/// @throws Error InvalidArgument unless the group size is -1 or a multiple of 8 that divides, naming the nearest
void check_bcq_group(std::int64_t in_features, std::int64_t group_size, const std::string& name);

/// The container of naver-aics/lut-gemm's examples, for exchange only: the signs [out_features, in_features, bits],
/// flattened, are eight equal runs, and byte j holds element j of run i in bit i.
/// @throws Error InvalidArgument when the number of signs is not a multiple of 8
at::Tensor pack_sign_runs(const at::Tensor& codes, int bits);
/// @return codes, uint8 [out_features, in_features] @throws Error BadFormat when `packed` has another length
at::Tensor unpack_sign_runs(const at::Tensor& packed, std::int64_t out_features, std::int64_t in_features, int bits);

}  // namespace qs
