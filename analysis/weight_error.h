#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "backend/types/linear_grid.h"
#include "backend/types/tensor_view.h"

namespace qs::analysis {

/// How far a quantized weight is from the original, and what that does to the layer's output.
struct WeightError {
  double relative_error = 0.0;  ///< ||W - W'||_F / ||W||_F
  double sqnr_db = 0.0;         ///< infinite when equal
  double mse = 0.0, max_abs_error = 0.0;
  /// sqrt(sum_j m_j ||W_j - W'_j||^2 / sum_j m_j ||W_j||^2) with m_j the mean square of input channel j: the relative
  /// error of x Wᵀ for inputs whose channels are not correlated. NaN when no second moments are known.
  double output_error = std::numeric_limits<double>::quiet_NaN();
};
/// @param original, quantized  f32 [out_features, in_features]
/// @param input_second_moment  [in_features], not negative; empty: not known
/// @throws Error InvalidArgument when the shapes differ
WeightError weight_error(const TensorView& original, const TensorView& quantized,
                         std::span<const float> input_second_moment = {});

/// The same cell by cell.
struct WeightErrorMap {
  TensorView signed_error, absolute_error;  ///< W' - W, [out_features, in_features]
  std::vector<float> by_input;              ///< root mean square over the outputs, [in_features]
  std::vector<float> by_output;             ///< root mean square over the inputs, [out_features]
};
WeightErrorMap weight_error_map(const TensorView& original, const TensorView& quantized);

/// Counts of original and quantized values in the same bins, which split low..high evenly; what is not finite is in
/// none.
struct WeightHistogram {
  double low = 0.0, high = 0.0;
  std::vector<std::int64_t> original, quantized;
  std::int64_t count = 0;  ///< of original values
};
/// @param bins  at least 1
WeightHistogram weight_histogram(std::span<const float> original, std::span<const float> quantized, int bins);

/// What a heatmap layer x linear can be coloured by.
enum class WeightMetric { RelativeError, SqnrDb, LossRatio, MaxAbsError, EffectiveBits, OutputError };
inline constexpr int kWeightMetrics = 6;
const char* weight_metric_id(WeightMetric metric);

/// One linear of one variant; NaN where something is not known.
struct LinearReport {
  std::string name, kind;  ///< "layers.3.self_attn.q_proj", "self_attn.q_proj"
  std::int64_t layer = 0, out_features = 0, in_features = 0;
  WeightError error;
  double effective_bits = std::numeric_limits<double>::quiet_NaN();
  double loss_ratio = std::numeric_limits<double>::quiet_NaN();  ///< proxy loss / that of round to nearest
};
double metric_of(const LinearReport& report, WeightMetric metric);

/// Linears of a variant as rows of kinds and columns of layers.
struct WeightOverview {
  std::vector<std::string> kinds;  ///< rows, in the order of the model
  std::int64_t layers = 0;
  std::vector<LinearReport> linears;
  /// [kinds, layers]; NaN where a layer has no such linear.
  TensorView matrix(WeightMetric metric) const;
  const LinearReport* find(std::int64_t layer, const std::string& kind) const;  ///< null when there is none
};
WeightOverview weight_overview(std::vector<LinearReport> linears);

/// Mean over the linears, each weighted by its number of weights; NaN when a metric is known of none.
double mean_of(const WeightOverview& overview, WeightMetric metric);

/// How marked cells of a matrix spread over its rows and columns.
struct MaskShares {
  std::vector<float> by_row, by_column;  ///< share of the cells, 0..1
  double share = 0.0;
  std::int64_t count = 0;
};
/// @param mask  [rows, columns], cells above 0 are marked
MaskShares mask_shares(const TensorView& mask);

/// What a row of a weight can be after quantization, in ascending order: scale * (code - zero_point) for each of the
/// 2^bits codes. Empty for bits outside 1..12.
std::vector<float> affine_levels(double scale, double zero_point, int bits);
/// The sums of +-alpha_k, plus offset: 2^planes levels in ascending order. @param alphas  at most 12
std::vector<float> binary_levels(std::span<const float> alphas, double offset);
/// What plane k adds to a weight of a binary grid: +-alpha, [out_features, in_features]. Empty for another grid, a
/// plane that is not there or signs that are not at hand.
TensorView binary_plane(const LinearGrid& grid, int plane);
/// The distinct values of `values` in ascending order, at most `most` of them; more: empty.
std::vector<float> distinct_levels(std::span<const float> values, std::size_t most);

}  // namespace qs::analysis
