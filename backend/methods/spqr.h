#pragma once

#include <ATen/core/Tensor.h>

#include <limits>
#include <string>
#include <vector>

#include "backend/methods/affine_weight.h"
#include "backend/methods/column_order.h"
#include "backend/types/job.h"

namespace qs {

/// SpQR of one weight (arXiv:2306.03078, algorithm 1; weights specification section 6): the sweep of GPTQ with small
/// groups whose statistics are quantized too, and outliers that stay in 16 bits.
struct SpqrOptions {
  int bits = 3;
  bool symmetric = false;
  std::int64_t group_size = 16;  ///< columns sharing a scale and a zero; -1: the whole row
  int qq_scale_bits = 3;         ///< second level; 0: statistics stay in scale_type
  int qq_zero_bits = 3;
  bool qq_zero_sym = false;
  std::int64_t qq_group_size = 16;                                     ///< rows sharing a second level
  double outlier_threshold = std::numeric_limits<double>::infinity();  ///< relative; higher means fewer outliers
  bool simplified_outliers = false;                                    ///< the group fit does not look for outliers
  bool round_zero = false;
  ColumnOrder order = ColumnOrder::Identity;
  double percdamp = 0.01;
  std::int64_t block_size = 128;  ///< speed only
  ScaleType scale_type = ScaleType::F16;

  bool quantizes_scales() const { return qq_scale_bits > 0; }
  bool quantizes_zeros() const { return qq_zero_bits > 0 && !symmetric && (!round_zero || qq_zero_bits < bits); }
  std::int64_t group_of(std::int64_t in_features) const { return group_size > 0 ? group_size : in_features; }
  /// Q3, not rounded. @param outlier_share  of the weights
  double average_bits(std::int64_t in_features, double outlier_share) const;
};

/// Second level of scales or of zeros. Undefined tensors when that statistic is not quantized.
struct SecondLevel {
  at::Tensor codes;        ///< uint8 [groups, out_features]
  at::Tensor scale, zero;  ///< f32 [groups, out_features / qq_group_size], as stored
};

struct SpqrResult {
  at::Tensor order;  ///< int64 [in_features]: original column of each place in the processing order
  at::Tensor codes;  ///< uint8 [out_features, in_features], processing order
  SecondLevel scales, zeros;
  at::Tensor scale, zero_point;  ///< f32 [groups, out_features] as they are reconstructed; zeros are real numbers
  at::Tensor outlier_rows;       ///< int32 [out_features + 1]: where each row begins
  at::Tensor outlier_columns;    ///< int32 [outliers], processing order, ascending in a row
  at::Tensor outlier_values;     ///< f32 [outliers], as stored: they replace the dense value
  at::Tensor values;             ///< f32 [out_features, in_features], original order
  double threshold = 0.0;        ///< T of Q1
  double outlier_share = 0.0, average_bits = 0.0;
  double loss = 0.0, undamped_loss = 0.0;  ///< as GptqResult
  double damping = 0.0;
  std::int64_t dead_columns = 0;
  bool rounded_to_nearest = false;
  std::vector<std::string> notes;
};

/// @param weight, hessian, name  as gptq()
/// @param order  int64 [in_features] to use instead of options.order; may be undefined
/// @throws Error InvalidArgument for a NaN or infinity, a group size that does not divide the input features, a
///         qq_group_size that does not divide the output features, or an order that is no permutation
SpqrResult spqr(const at::Tensor& weight, const at::Tensor& hessian, const SpqrOptions& options,
                const std::string& name, const JobContext& job, const at::Tensor& order = {});

/// Fills scale and zero_point of statistics that have a second level. @param run  rows sharing it
void rebuild_statistics(SpqrResult& result, std::int64_t run, ScaleType type);

/// scale * (code - zero_point) of every weight, original order, with the outliers in place.
/// @param codes, scale, zero_point, order  as in SpqrResult
at::Tensor spqr_values(const SpqrResult& result);

/// What spqr() works on.
struct SpqrLayer {
  at::Tensor weight, hessian;
  std::string name;
};
/// The outlier_threshold whose average bits over `layers`, weighted by their sizes, come closest to `target_bits`, by
/// bisection on its logarithm in 0.001 to 100.
/// @throws Error InvalidArgument when the target lies below the bits of the codes and statistics alone
struct SpqrThreshold {
  double outlier_threshold = 0.0, average_bits = 0.0;
};
SpqrThreshold find_outlier_threshold(const std::vector<SpqrLayer>& layers, SpqrOptions options, double target_bits,
                                     const JobContext& job);

}  // namespace qs
