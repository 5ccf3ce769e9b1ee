#include "app/inspection.h"

#include <algorithm>
#include <cmath>

#include "backend/evaluation/apply.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/metrics.h"

namespace qs {
namespace {

std::optional<TensorReport> report_of(const std::string& line, CaptureReader& capture, const InspectionRequest& request,
                                      const JobContext& job) {
  const std::optional<Setup> setup = parse_kv_setup(line);
  if (!setup) return std::nullopt;
  const AppliedLayer applied = apply_to_capture(*setup, capture, request.layer, job);
  return request.tensor == "value" ? applied.value.report : applied.key.report;
}

}  // namespace

Inspection inspect_tensor(CaptureReader& capture, const InspectionRequest& request, const JobContext& job) {
  job.checkpoint(0, 3, "Statistics");
  const TensorView x = capture.read_layer(request.layer, request.tensor);
  double absmax = 0.0;
  std::int64_t not_finite = 0;
  for (const float value : x.values()) {
    if (!std::isfinite(value))
      ++not_finite;
    else
      absmax = std::max(absmax, std::abs(static_cast<double>(value)));
  }
  Inspection result;
  const double tail = kurtosis(x.values());
  result.rows.push_back({"absmax", absmax, absmax});
  result.rows.push_back({"kurtosis (excess)", tail, tail});
  job.checkpoint(1, 3, "Variant A");
  const auto a = report_of(request.kv_a, capture, request, job.part(0.33, 0.66));
  job.checkpoint(2, 3, "Variant B");
  const auto b = report_of(request.kv_b, capture, request, job.part(0.66, 1.0));
  const auto add = [&](const char* name, auto field) {
    const auto value = [&](const std::optional<TensorReport>& report) -> std::optional<double> {
      if (!report) return std::nullopt;
      const double number = static_cast<double>(field(*report));
      return std::isnan(number) ? std::nullopt : std::optional(number);
    };
    result.rows.push_back({name, value(a), value(b)});
  };
  add("relative error", [](const TensorReport& r) { return r.relative_error; });
  add("SQNR [dB]", [](const TensorReport& r) { return r.sqnr_db; });
  add("max |error|", [](const TensorReport& r) { return r.max_abs_error; });
  add("attention output error", [](const TensorReport& r) { return r.functional_error; });
  add("effective bits", [](const TensorReport& r) { return r.effective_bits; });
  add("packed KiB", [](const TensorReport& r) { return r.packed_bytes / 1024.0; });
  add("changed [%]", [](const TensorReport& r) { return 100.0 * r.changed_fraction; });
  add("saturated [%]", [](const TensorReport& r) { return 100.0 * r.saturated_fraction; });
  add("levels used", [](const TensorReport& r) { return r.levels_used; });
  add("tokens in full precision", [](const TensorReport& r) { return r.tokens_full_precision; });
  if (not_finite > 0) result.warning = std::to_string(not_finite) + " values are NaN or infinite. ";
  for (const auto* report : {&a, &b}) {
    if (*report) {
      for (const std::string& warning : (*report)->warnings) result.warning += warning + " ";
    }
  }
  if (a && b && std::isfinite(a->functional_error) && std::isfinite(b->functional_error) &&
      (a->relative_error < b->relative_error) != (a->functional_error < b->functional_error)) {
    result.warning += "Reconstruction and attention output disagree on which of the two is better.";
  }
  return result;
}

double kv_effective_bits(const std::string& kv, std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                         std::int64_t tokens, std::int64_t layers) {
  const std::optional<Setup> setup = parse_kv_setup(kv);
  if (!setup) return 16.0;
  CacheShape shape;
  shape.heads = heads;
  shape.kv_heads = kv_heads;
  shape.head_dim = head_dim;
  return make_kv_plan(*setup, layers, nullptr)->effective_bits(shape, tokens);
}

}  // namespace qs
