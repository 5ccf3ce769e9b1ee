#include "backend/metrics.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "backend/types/error.h"

namespace qs {
namespace {

double squared_error(std::span<const float> a, std::span<const float> b) {
  assert(a.size() == b.size());
  double sum = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += difference * difference;
  }
  return sum;
}

double energy(std::span<const float> a) {
  double sum = 0.0;
  for (const float x : a) sum += static_cast<double>(x) * static_cast<double>(x);
  return sum;
}

double log_sum_exp(std::span<const float> logits) {
  double top = -std::numeric_limits<double>::infinity();
  for (const float x : logits) top = std::max(top, static_cast<double>(x));
  double sum = 0.0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  return top + std::log(sum);
}

}  // namespace

double mse(std::span<const float> reference, std::span<const float> other) {
  return reference.empty() ? 0.0 : squared_error(reference, other) / static_cast<double>(reference.size());
}

double relative_error(std::span<const float> reference, std::span<const float> other) {
  const double error = squared_error(reference, other);
  return error == 0.0 ? 0.0 : std::sqrt(error / energy(reference));
}

double sqnr_db(std::span<const float> reference, std::span<const float> other) {
  const double error = squared_error(reference, other);
  if (error == 0.0) return std::numeric_limits<double>::infinity();
  return 10.0 * std::log10(energy(reference) / error);
}

double cosine(std::span<const float> reference, std::span<const float> other) {
  assert(reference.size() == other.size());
  double dot = 0.0;
  for (std::size_t i = 0; i < reference.size(); ++i)
    dot += static_cast<double>(reference[i]) * static_cast<double>(other[i]);
  const double length_reference = std::sqrt(energy(reference));
  const double length_other = std::sqrt(energy(other));
  if (length_reference == 0.0 && length_other == 0.0) return 1.0;
  if (length_reference == 0.0 || length_other == 0.0) return 0.0;
  return dot / length_reference / length_other;
}

double max_abs_error(std::span<const float> reference, std::span<const float> other) {
  assert(reference.size() == other.size());
  double worst = 0.0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    const double difference = std::fabs(static_cast<double>(reference[i]) - static_cast<double>(other[i]));
    if (std::isnan(difference)) return difference;
    worst = std::max(worst, difference);
  }
  return worst;
}

double kurtosis(std::span<const float> x) {
  if (x.empty()) return 0.0;
  const double n = static_cast<double>(x.size());
  double mean = 0.0;
  for (const float value : x) mean += static_cast<double>(value);
  mean /= n;
  double second = 0.0, fourth = 0.0;
  for (const float value : x) {
    const double square = (static_cast<double>(value) - mean) * (static_cast<double>(value) - mean);
    second += square;
    fourth += square * square;
  }
  second /= n;
  fourth /= n;
  return second == 0.0 ? 0.0 : fourth / (second * second) - 3.0;
}

double kl_divergence(std::span<const float> p_logits, std::span<const float> q_logits) {
  assert(p_logits.size() == q_logits.size());
  const double p_norm = log_sum_exp(p_logits);
  const double q_norm = log_sum_exp(q_logits);
  double sum = 0.0;
  for (std::size_t i = 0; i < p_logits.size(); ++i) {
    const double log_p = static_cast<double>(p_logits[i]) - p_norm;
    const double p = std::exp(log_p);
    if (p == 0.0) continue;
    sum += p * (log_p - (static_cast<double>(q_logits[i]) - q_norm));
  }
  // Rounding may leave -1e-17 between equal rows; NaN passes through.
  return sum < 0.0 && sum > -1e-12 ? 0.0 : sum;
}

double student_t_975(std::int64_t degrees_of_freedom) {
  static constexpr std::array kTable = {12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060,
                                        2.2622,  2.2281, 2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199,
                                        2.1098,  2.1009, 2.0930, 2.0860, 2.0796, 2.0739, 2.0687, 2.0639,
                                        2.0595,  2.0555, 2.0518, 2.0484, 2.0452, 2.0423};
  if (degrees_of_freedom < 1) return std::numeric_limits<double>::infinity();
  if (degrees_of_freedom <= static_cast<std::int64_t>(kTable.size()))
    return kTable[static_cast<std::size_t>(degrees_of_freedom - 1)];
  // Cornish-Fisher expansion around the normal quantile; its error is below 1e-4 from 30 degrees of freedom on.
  constexpr double z = 1.959963985;
  const auto n = static_cast<double>(degrees_of_freedom);
  return z + (z * z * z + z) / (4.0 * n) + (5.0 * std::pow(z, 5) + 16.0 * z * z * z + 3.0 * z) / (96.0 * n * n);
}

MeanError mean_with_error(std::span<const double> items) {
  MeanError result;
  if (items.empty()) return result;
  const auto n = static_cast<double>(items.size());
  for (const double item : items) result.mean += item / n;
  if (items.size() < 2) return result;
  double squares = 0.0;
  for (const double item : items) squares += (item - result.mean) * (item - result.mean);
  result.standard_error = std::sqrt(squares / (n - 1.0) / n);
  return result;
}

PairedDifference paired_difference(std::span<const double> a, std::span<const double> b) {
  if (a.size() != b.size() || a.empty()) {
    throw Error(ErrorCode::InvalidArgument, "Only runs over the same windows can be compared: one has " +
                                                std::to_string(a.size()) + " items, the other " +
                                                std::to_string(b.size()) + ".");
  }
  std::vector<double> differences;
  for (std::size_t i = 0; i < a.size(); ++i) differences.push_back(b[i] - a[i]);
  const MeanError found = mean_with_error(differences);
  const auto n = static_cast<std::int64_t>(differences.size());
  const double half = n < 2 ? std::numeric_limits<double>::infinity() : student_t_975(n - 1) * found.standard_error;
  return {found.mean, found.mean - half, found.mean + half, n};
}

}  // namespace qs
