#include "analysis/weight_progress.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace qs::analysis {

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

double loss_ratio(const LayerProgress& linear) {
  if (!std::isfinite(linear.loss) || !std::isfinite(linear.rtn_loss)) return kNan;
  if (linear.rtn_loss <= 0.0) return linear.loss <= 0.0 ? 1.0 : std::numeric_limits<double>::infinity();
  return linear.loss / linear.rtn_loss;
}

std::string linear_kind(const std::string& name) {
  constexpr std::string_view kPrefix = "layers.";
  if (name.compare(0, kPrefix.size(), kPrefix) != 0) return name;
  const std::size_t dot = name.find('.', kPrefix.size());
  return dot == std::string::npos ? name : name.substr(dot + 1);
}

std::vector<std::string> linear_kinds(std::span<const LayerProgress> linears) {
  std::vector<std::string> kinds;
  for (const LayerProgress& linear : linears) {
    std::string kind = linear_kind(linear.linear);
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(std::move(kind));
  }
  return kinds;
}

RunSummary summarize_run(std::span<const LayerProgress> linears, std::int64_t linears_per_layer, double elapsed_seconds,
                         double forecast_seconds) {
  RunSummary summary;
  summary.loss_ratio = summary.effective_bits = kNan;
  if (forecast_seconds > 0.0) summary.left_seconds = std::max(0.0, forecast_seconds - elapsed_seconds);
  if (linears.empty()) return summary;
  double logarithms = 0.0, bits = 0.0;
  std::int64_t with_ratio = 0, in_first = 0;
  for (const LayerProgress& linear : linears) {
    summary.layer = std::max(summary.layer, linear.layer);
    summary.layers = std::max(summary.layers, linear.layers);
    summary.resumed += linear.resumed;
    summary.fallbacks += !linear.notes.empty();
    bits += linear.effective_bits;
    in_first += linear.layer == linears.front().layer;
    const double ratio = loss_ratio(linear);
    if (ratio > 1.0) ++summary.worse;
    if (ratio > 0.0 && std::isfinite(ratio)) logarithms += std::log(ratio), ++with_ratio;
  }
  summary.done = static_cast<std::int64_t>(linears.size());
  summary.effective_bits = bits / static_cast<double>(summary.done);
  if (with_ratio > 0) summary.loss_ratio = std::exp(logarithms / static_cast<double>(with_ratio));
  if (linears_per_layer <= 0 && summary.layer > linears.front().layer) linears_per_layer = in_first;
  summary.total = linears_per_layer * summary.layers;
  const std::int64_t fresh = summary.done - summary.resumed;
  if (summary.total > 0 && fresh > 0)
    summary.left_seconds = elapsed_seconds / static_cast<double>(fresh) *
                           static_cast<double>(std::max<std::int64_t>(0, summary.total - summary.done));
  return summary;
}

}  // namespace qs::analysis
