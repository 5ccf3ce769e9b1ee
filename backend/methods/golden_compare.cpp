#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "backend/methods/golden.h"

namespace qs {
namespace {

struct Difference {
  double worst = 0.0;   ///< largest |a - b|; infinity when one side alone is NaN
  double within = 1.0;  ///< fraction with |a - b| <= tol
  double norm = 0.0, norm_expected = 0.0;
};

Difference measure(const at::Tensor& actual, const at::Tensor& expected, double tolerance) {
  const at::Tensor a = actual.to(at::kDouble).contiguous().view({-1}),
                   b = expected.to(at::kDouble).contiguous().view({-1});
  const double* const x = a.data_ptr<double>();
  const double* const y = b.data_ptr<double>();
  Difference result;
  std::int64_t inside = 0;
  for (std::int64_t i = 0; i < a.numel(); ++i) {
    double error = 0.0;
    if (std::isnan(x[i]) || std::isnan(y[i])) {
      error = std::isnan(x[i]) && std::isnan(y[i]) ? 0.0 : std::numeric_limits<double>::infinity();
    } else if (x[i] != y[i]) {
      error = std::fabs(x[i] - y[i]);
      if (std::isnan(error)) error = std::numeric_limits<double>::infinity();
    }
    result.worst = std::max(result.worst, error);
    result.norm += error * error;
    if (!std::isnan(y[i])) result.norm_expected += y[i] * y[i];
    inside += error <= tolerance;
  }
  result.norm = std::sqrt(result.norm);
  result.norm_expected = std::sqrt(result.norm_expected);
  if (a.numel() > 0) result.within = static_cast<double>(inside) / static_cast<double>(a.numel());
  return result;
}

/// Rows (runs of the last axis) that differ when compared as sets without their -1 entries.
double differing_rows(const at::Tensor& actual, const at::Tensor& expected) {
  const auto rows_of = [](const at::Tensor& t) {
    const at::Tensor values = t.to(at::kDouble).contiguous();
    const std::int64_t length = t.dim() > 0 ? std::max<std::int64_t>(t.size(-1), 1) : 1;
    std::vector<std::set<double>> rows(static_cast<std::size_t>(t.numel() / length));
    const double* const data = values.data_ptr<double>();
    for (std::int64_t i = 0; i < t.numel(); ++i) {
      if (data[i] != -1.0) rows[i / length].insert(data[i]);
    }
    return rows;
  };
  const auto left = rows_of(actual), right = rows_of(expected);
  if (left.size() != right.size()) return std::numeric_limits<double>::infinity();
  double differing = 0.0;
  for (std::size_t row = 0; row < left.size(); ++row) differing += left[row] != right[row];
  return differing;
}

std::string text_of(double value) { return nlohmann::json(value).dump(); }

}  // namespace

GoldenComparison compare_golden(const at::Tensor& actual, const at::Tensor& expected, const nlohmann::json& compare) {
  const std::string mode = compare.value("mode", "");
  const double tolerance = compare.value("tol", 0.0);
  if (mode == "set") {
    const double rows = differing_rows(actual, expected);
    return {rows == 0.0, "set: rows equal as sets", rows};
  }
  if (actual.numel() != expected.numel()) {
    return {false,
            "as many elements as expected: " + std::to_string(expected.numel()) + ", found " +
                std::to_string(actual.numel()),
            std::numeric_limits<double>::infinity()};
  }
  if (mode == "le") {
    const at::Tensor a = actual.to(at::kDouble).view({-1}), limit = expected.to(at::kDouble).view({-1}) * tolerance;
    const bool holds = a.le(limit).all().item<bool>();
    return {holds, "le " + text_of(tolerance) + " times the stored value",
            a.numel() > 0 ? (a / expected.to(at::kDouble).view({-1})).max().item<double>() : 0.0};
  }
  const Difference difference = measure(actual, expected, tolerance);
  if (mode == "exact") return {difference.worst == 0.0, "exact", difference.worst};
  if (mode == "abs") return {difference.worst <= tolerance, "abs " + text_of(tolerance), difference.worst};
  if (mode == "rel_fro") {
    const double relative = difference.norm == 0.0 ? 0.0 : difference.norm / difference.norm_expected;
    return {difference.norm <= tolerance * difference.norm_expected, "rel_fro " + text_of(tolerance), relative};
  }
  if (mode == "abs_frac") {
    const double fraction = compare.value("fraction", 1.0);
    const double most = compare.value("max", std::numeric_limits<double>::infinity());
    return {difference.within >= fraction && difference.worst <= most,
            "abs_frac: " + text_of(fraction) + " within " + text_of(tolerance) + ", the rest within " + text_of(most),
            difference.worst};
  }
  return {false, "a known compare mode, found '" + mode + "'", 0.0};
}

}  // namespace qs
