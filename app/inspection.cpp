#include "app/inspection.h"

#include <algorithm>
#include <cmath>

#include "analysis/error_map.h"
#include "app/presenters/applied_setup.h"
#include "backend/method.h"
#include "backend/method_registry.h"
#include "backend/metrics.h"

namespace qs {
namespace {

/// What is kept of one side: not the tensors.
struct Side {
  TensorReport report;
  KvOverlay overlay;
  double saturated = 0.0;                       ///< share of coded elements, widths of their own included
  std::optional<double> error_with_f16_scales;  ///< of a setup that keeps its scales in 8-bit floats
  double scales_at_limit = 0.0;                 ///< share of scales and minima at the largest 8-bit float
};

/// Largest value of the 8-bit float that holds the scales of `setup`; 0 when they are wider.
double parameter_limit(const Setup& setup) {
  const auto store = setup.params.find("store");
  if (store == setup.params.end() || !std::holds_alternative<std::string>(store->second)) return 0.0;
  const std::string& type = std::get<std::string>(store->second);
  return type == "e4m3" ? 448.0 : type == "e5m2" ? 57344.0 : 0.0;
}

std::optional<Side> side_of(const Workbench& workbench, const std::string& line, CaptureReader& capture,
                            const InspectionRequest& request, const JobContext& job) {
  const std::optional<Setup> whole = parse_kv_setup(line);
  if (!whole) return std::nullopt;
  const std::optional<KvArtifact> calibration = remembered_calibration(workbench, *whole, capture.info());
  const auto apply = [&](const Setup& setup, const JobContext& part) {
    AppliedLayer applied = apply_to_capture(setup, capture, request.layer, part, calibration ? &*calibration : nullptr);
    return request.tensor == "value" ? std::move(applied.value) : std::move(applied.key);
  };
  AppliedTensor tensor = apply(*whole, job.part(0.0, 0.6));
  Side side;
  side.saturated = tensor.report.saturated_fraction;
  if (tensor.report.levels == 0 && !tensor.codes.empty() && tensor.overlay.has_levels() && tensor.overlay.coded > 0) {
    const TensorView mask = analysis::saturation_mask(tensor.codes, tensor.overlay);
    side.saturated =
        analysis::marked_fraction(mask) * static_cast<double>(mask.size()) / static_cast<double>(tensor.overlay.coded);
  }
  if (const double limit = parameter_limit(setup_of_layer(*whole, request.layer)); limit > 0.0) {
    Setup wider = setup_of_layer(*whole, request.layer);
    wider.params["store"] = std::string("f16");
    side.error_with_f16_scales = apply(wider, job.part(0.6, 1.0)).report.relative_error;
    std::int64_t at_limit = 0, all = 0;
    for (const std::vector<float>* values : {&tensor.overlay.scale, &tensor.overlay.group_min})
      for (const float value : *values) {
        if (!std::isfinite(value)) continue;
        ++all;
        at_limit += std::fabs(value) >= limit;
      }
    side.scales_at_limit = all > 0 ? static_cast<double>(at_limit) / static_cast<double>(all) : 0.0;
  }
  side.report = std::move(tensor.report);
  side.overlay = std::move(tensor.overlay);
  return side;
}

}  // namespace

Inspection inspect_tensor(const Workbench& workbench, CaptureReader& capture, const InspectionRequest& request,
                          const JobContext& job) {
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
  const std::optional<Side> a = side_of(workbench, request.kv_a, capture, request, job.part(0.33, 0.66));
  job.checkpoint(2, 3, "Variant B");
  const std::optional<Side> b = side_of(workbench, request.kv_b, capture, request, job.part(0.66, 1.0));
  const auto add_if = [&](bool always, const char* name, const char* help, auto field) {
    const auto value = [&](const std::optional<Side>& side) -> std::optional<double> {
      if (!side) return std::nullopt;
      const std::optional<double> number = field(*side);
      return number && !std::isnan(*number) ? number : std::nullopt;
    };
    const std::optional<double> left = value(a), right = value(b);
    if (!always && left.value_or(0.0) == 0.0 && right.value_or(0.0) == 0.0) return;
    result.rows.push_back({name, left, right, help});
  };
  using Value = std::optional<double>;
  const auto add = [&](const char* name, const char* help, auto field) {
    add_if(true, name, help, [&](const Side& s) { return Value(static_cast<double>(field(s))); });
  };
  const auto add_known = [&](const char* name, const char* help, auto field) {
    add_if(false, name, help, [&](const Side& s) { return Value(field(s)); });
  };
  add("relative error", "||x - x'|| / ||x|| of this tensor", [](const Side& s) { return s.report.relative_error; });
  add("SQNR [dB]", "signal to quantization noise of this tensor", [](const Side& s) { return s.report.sqnr_db; });
  add("max |error|", "in activation units", [](const Side& s) { return s.report.max_abs_error; });
  add("attention output error", "relative, with only this tensor replaced",
      [](const Side& s) { return s.report.functional_error; });
  add("bits, published", "of a quantized element of this tensor, counted as the paper does",
      [](const Side& s) { return s.overlay.published_bits; });
  add("bits, stored", "of an element of the layer's cache as allocated, window included",
      [](const Side& s) { return s.report.effective_bits; });
  add_known("mean code width [bit]", "over the elements that have a code", [](const Side& s) {
    return s.report.levels == 0 && s.overlay.has_levels() ? s.overlay.mean_code_bits : 0.0;
  });
  add("changed [%]", "elements whose value changed", [](const Side& s) { return 100.0 * s.report.changed_fraction; });
  add("levels used", "of the codes that there are", [](const Side& s) { return s.report.levels_used; });
  add("saturated [%]", "coded elements at the lowest or highest code",
      [](const Side& s) { return 100.0 * s.saturated; });
  add_known("clipped [%]", "coded elements farther outside their range than half a step", [](const Side& s) {
    return std::isnan(s.overlay.clipped_fraction) ? 0.0 : 100.0 * s.overlay.clipped_fraction;
  });
  add_known("picked outliers [%]", "elements of quantized tokens that were kept in full precision", [](const Side& s) {
    const std::int64_t all = s.overlay.picked + s.overlay.coded;
    return all > 0 ? 100.0 * static_cast<double>(s.overlay.picked) / static_cast<double>(all) : 0.0;
  });
  add("tokens in full precision", "window and sinks", [](const Side& s) { return s.report.tokens_full_precision; });
  add_known("evicted tokens [%]", "that a KV head no longer holds, mean over heads", [](const Side& s) {
    return 100.0 * static_cast<double>(s.overlay.evicted_tokens) /
           static_cast<double>(std::max<std::int64_t>(1, s.overlay.tokens * s.overlay.kv_heads));
  });
  add_if(false, "error with f16 scales", "relative error if scales were not rounded to 8-bit floats",
         [](const Side& s) { return s.error_with_f16_scales; });
  add_known("scales at the fp8 limit [%]", "scales and minima that the 8-bit float cannot hold",
            [](const Side& s) { return 100.0 * s.scales_at_limit; });
  const auto kib = [](std::int64_t bytes) { return static_cast<double>(bytes) / 1024.0; };
  add("layer, packed [KiB]", "keys and values of the layer as allocated",
      [&](const Side& s) { return kib(s.report.packed_bytes); });
  const auto part = [&](const char* name, const char* help, std::int64_t CacheStats::*bytes) {
    add_known(name, help, [&, bytes](const Side& s) { return kib(s.report.parts.*bytes); });
  };
  part("  codes [KiB]", "", &CacheStats::bytes_codes);
  part("  scales [KiB]", "", &CacheStats::bytes_scales);
  part("  zero points, minima [KiB]", "", &CacheStats::bytes_zeros);
  part("  outliers [KiB]", "values of elements kept in full precision", &CacheStats::bytes_outliers);
  part("  outlier indices [KiB]", "", &CacheStats::bytes_indices);
  part("  code widths [KiB]", "of vectors whose width is their own", &CacheStats::bytes_widths);
  part("  small factor [KiB]", "the factor that stays in 16 bits", &CacheStats::bytes_small_factor);
  part("  full precision [KiB]", "window and sinks", &CacheStats::bytes_full_precision);
  part("constants, once [KiB]", "thresholds, codebooks, channel order: once a layer, not counted in the bits",
       &CacheStats::bytes_constants);
  if (not_finite > 0) result.warning = std::to_string(not_finite) + " values are NaN or infinite. ";
  for (const auto* report : {&a, &b}) {
    if (*report) {
      for (const std::string& warning : (*report)->report.warnings) result.warning += warning + " ";
    }
  }
  if (a && b) {
    const auto flags = analysis::disagreements({{"A", a->report.relative_error, a->report.functional_error},
                                                {"B", b->report.relative_error, b->report.functional_error}});
    if (flags.front()) result.warning += "Reconstruction and attention output disagree on which of the two is better.";
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
