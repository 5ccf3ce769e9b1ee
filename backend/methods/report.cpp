#include <ATen/ATen.h>

#include <limits>
#include <vector>

#include "backend/method.h"
#include "backend/metrics.h"

namespace qs {
namespace {

std::span<const float> values_of(const at::Tensor& x) {
  return {x.data_ptr<float>(), static_cast<std::size_t>(x.numel())};
}

}  // namespace

TensorReport report_tensor(const std::string& name, const at::Tensor& original, const QuantizedTensor& quantized) {
  const at::Tensor reference = original.to(at::kFloat).contiguous();
  const at::Tensor other = quantized.values.to(at::kFloat).contiguous();
  TensorReport report;
  report.name = name;
  report.shape = original.sizes().vec();
  report.mse = mse(values_of(reference), values_of(other));
  report.relative_error = relative_error(values_of(reference), values_of(other));
  report.sqnr_db = sqnr_db(values_of(reference), values_of(other));
  report.cosine = cosine(values_of(reference), values_of(other));
  report.max_abs_error = max_abs_error(values_of(reference), values_of(other));
  report.functional_error = std::numeric_limits<double>::quiet_NaN();
  report.levels = quantized.levels;
  report.warnings = quantized.notes;
  const double count = static_cast<double>(original.numel());
  if (count == 0) return report;
  report.changed_fraction = static_cast<double>(other.ne(reference).sum().item<std::int64_t>()) / count;
  if (!quantized.codes.defined()) return report;

  const at::Tensor codes = quantized.codes.contiguous();
  const at::Tensor exempt = quantized.full_precision.defined() ? quantized.full_precision.contiguous() : at::Tensor();
  const std::uint8_t* const code = codes.data_ptr<std::uint8_t>();
  const bool* const skip = exempt.defined() ? exempt.data_ptr<bool>() : nullptr;
  std::vector<std::int64_t> histogram(256, 0);
  std::int64_t coded = 0;
  for (std::int64_t i = 0; i < codes.numel(); ++i) {
    if (skip != nullptr && skip[i]) continue;
    ++histogram[code[i]];
    ++coded;
  }
  for (const std::int64_t uses : histogram) report.levels_used += uses > 0;
  if (coded > 0 && quantized.levels > 0) {
    const std::int64_t saturated = histogram[0] + histogram[static_cast<std::size_t>(quantized.levels - 1)];
    report.saturated_fraction = static_cast<double>(saturated) / static_cast<double>(coded);
  }
  if (exempt.defined() && original.dim() == 3) {
    report.tokens_full_precision = exempt.all(2).all(0).sum().item<std::int64_t>();
  }
  if (report.changed_fraction == 0.0)
    report.warnings.push_back("No element changed: every value was already on the grid.");
  return report;
}

}  // namespace qs
