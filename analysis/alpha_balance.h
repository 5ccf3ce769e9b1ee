#pragma once

#include <span>
#include <vector>

namespace qs::analysis {

/// Channel maxima before and after SmoothQuant's smoothing (arXiv:2211.10438, equation 4; here S1 and S2).
struct Migration {
  std::vector<float> scale;  ///< s_j = max(1e-5, a_j^alpha / w_j^(1 - alpha)); 1 for a dead channel
  std::vector<float> activation_after, weight_after;  ///< a_j / s_j, w_j * s_j
  float activation_peak_before = 0, activation_peak_after = 0, weight_peak_before = 0, weight_peak_after = 0;
};

/// @param activation_absmax, weight_absmax  [channels], not negative
/// @param alpha  0..1; 0 leaves the whole difficulty in the activations' scale, 1 moves all of it into the weights
/// @throws Error InvalidArgument when the lengths differ or alpha is outside 0..1
Migration migrate(std::span<const float> activation_absmax, std::span<const float> weight_absmax, double alpha);

/// How much of the output error rounding X and rounding W may cause, estimated from channel maxima alone.
///
/// With y = sum_j x_j w_j, steps dx = 2 max_j |x_j| / (2^bits_a - 1) and dw likewise, uniform rounding errors give
/// var_x = dx^2 / 12 * sum_j w_j^2 and var_w = dw^2 / 12 * sum_j x_j^2; both are divided by sum_j (x_j w_j)^2 and the
/// square root is taken. Maxima stand in for amplitudes, so the values compare alphas, not layers.
struct DifficultyPoint {
  double alpha = 0.0;
  double activation = 0.0, weight = 0.0;
  double total() const;
};
DifficultyPoint difficulty(std::span<const float> activation_absmax, std::span<const float> weight_absmax, double alpha,
                           int bits_a, int bits_w);
/// The curve at `points` alphas from 0 to 1.
std::vector<DifficultyPoint> difficulty_curve(std::span<const float> activation_absmax,
                                              std::span<const float> weight_absmax, int points, int bits_a, int bits_w);

}  // namespace qs::analysis
