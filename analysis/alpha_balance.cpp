#include "analysis/alpha_balance.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "backend/types/error.h"

namespace qs::analysis {

namespace {

constexpr double kFloor = 1e-5;

void require_matching(std::span<const float> a, std::span<const float> w, double alpha) {
  if (a.size() != w.size()) {
    throw Error(ErrorCode::InvalidArgument,
                "Smoothing needs one weight maximum for each activation channel: " + std::to_string(a.size()) +
                    " activation channels, " + std::to_string(w.size()) + " weight channels.");
  }
  if (!(alpha >= 0.0 && alpha <= 1.0)) {
    throw Error(ErrorCode::InvalidArgument, "alpha is " + std::to_string(alpha) + ", it must lie between 0 and 1.");
  }
}

double smoothing_scale(double a, double w, double alpha) {
  if (a <= 0.0) return 1.0;
  return std::max(kFloor, std::pow(a, alpha) / std::pow(std::max(kFloor, w), 1.0 - alpha));
}

}  // namespace

double DifficultyPoint::total() const { return std::hypot(activation, weight); }

Migration migrate(std::span<const float> activation_absmax, std::span<const float> weight_absmax, double alpha) {
  require_matching(activation_absmax, weight_absmax, alpha);
  Migration result;
  const std::size_t channels = activation_absmax.size();
  result.scale.resize(channels);
  result.activation_after.resize(channels);
  result.weight_after.resize(channels);
  for (std::size_t j = 0; j < channels; ++j) {
    const double s = smoothing_scale(activation_absmax[j], weight_absmax[j], alpha);
    result.scale[j] = static_cast<float>(s);
    result.activation_after[j] = static_cast<float>(activation_absmax[j] / s);
    result.weight_after[j] = static_cast<float>(weight_absmax[j] * s);
    result.activation_peak_before = std::max(result.activation_peak_before, activation_absmax[j]);
    result.activation_peak_after = std::max(result.activation_peak_after, result.activation_after[j]);
    result.weight_peak_before = std::max(result.weight_peak_before, weight_absmax[j]);
    result.weight_peak_after = std::max(result.weight_peak_after, result.weight_after[j]);
  }
  return result;
}

DifficultyPoint difficulty(std::span<const float> activation_absmax, std::span<const float> weight_absmax, double alpha,
                           int bits_a, int bits_w) {
  require_matching(activation_absmax, weight_absmax, alpha);
  double peak_x = 0, peak_w = 0, sum_x = 0, sum_w = 0, sum_product = 0;
  for (std::size_t j = 0; j < activation_absmax.size(); ++j) {
    const double s = smoothing_scale(activation_absmax[j], weight_absmax[j], alpha);
    const double x = activation_absmax[j] / s, w = weight_absmax[j] * s;
    peak_x = std::max(peak_x, x);
    peak_w = std::max(peak_w, w);
    sum_x += x * x;
    sum_w += w * w;
    sum_product += x * x * w * w;
  }
  if (sum_product <= 0.0) return {alpha, 0.0, 0.0};
  const double step_x = 2.0 * peak_x / (std::exp2(bits_a) - 1.0), step_w = 2.0 * peak_w / (std::exp2(bits_w) - 1.0);
  return {alpha, std::sqrt(step_x * step_x / 12.0 * sum_w / sum_product),
          std::sqrt(step_w * step_w / 12.0 * sum_x / sum_product)};
}

std::vector<DifficultyPoint> difficulty_curve(std::span<const float> activation_absmax,
                                              std::span<const float> weight_absmax, int points, int bits_a,
                                              int bits_w) {
  std::vector<DifficultyPoint> curve;
  for (int i = 0; i < points; ++i) {
    const double alpha = points > 1 ? static_cast<double>(i) / (points - 1) : 0.5;
    curve.push_back(difficulty(activation_absmax, weight_absmax, alpha, bits_a, bits_w));
  }
  return curve;
}

}  // namespace qs::analysis
