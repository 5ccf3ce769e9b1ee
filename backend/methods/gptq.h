#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "backend/methods/affine_weight.h"
#include "backend/types/job.h"

namespace qs {

/// GPTQ of one weight (arXiv:2210.17323, algorithm 1; weights specification section 5).
struct GptqOptions {
  AffineQuantizer affine;
  std::int64_t group_size = -1;   ///< -1: the whole row; the last group of a row may be shorter
  bool act_order = false;         ///< columns by descending diagonal of H
  bool static_groups = false;     ///< ranges of runs of the original columns, found before the sweep
  bool fresh_statistics = false;  ///< group ranges see every update; the published code misses those of the block
  double percdamp = 0.01;
  std::int64_t block_size = 128;
};

struct GptqResult {
  at::Tensor codes;              ///< uint8 [out_features, in_features], original column order
  at::Tensor scale, zero_point;  ///< f32 [out_features, groups]; the scale as stored
  at::Tensor group_index;        ///< int32 [in_features]: the group of each original column
  at::Tensor order;              ///< int64 [in_features]: original column of each place in the processing order
  at::Tensor values;             ///< f32 [out_features, in_features]: scale * (code - zero_point)
  at::Tensor row_loss;           ///< f64 [out_features]: ½ d H_damped dᵀ of each row d of W - Ŵ (G5)
  double loss = 0.0;             ///< their sum
  double undamped_loss = 0.0;    ///< ½ tr(ΔW H ΔWᵀ)
  double damping = 0.0;          ///< that was needed; 0 after the fallback
  std::int64_t dead_columns = 0;
  bool rounded_to_nearest = false;  ///< the fallback: no input reached this layer, or H cannot be factorized
  std::vector<std::string> notes;
};

/// @param weight   [out_features, in_features], any float type
/// @param hessian  f32 [in_features, in_features] (HessianSum::matrix), or undefined: no input is known
/// @param name     for messages
/// @throws Error InvalidArgument naming row and column of a NaN or infinity, or static_groups without a group size
GptqResult gptq(const at::Tensor& weight, const at::Tensor& hessian, const GptqOptions& options,
                const std::string& name, const JobContext& job);

/// Groups of a row of `in_features` columns.
std::int64_t group_count(std::int64_t in_features, std::int64_t group_size);

}  // namespace qs
