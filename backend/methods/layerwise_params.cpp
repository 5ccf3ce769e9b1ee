#include "backend/methods/layerwise_params.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "backend/methods/hessian.h"

namespace qs {
namespace {

constexpr std::int64_t kBaselineRows = 256;

}  // namespace

void append_layerwise_params(std::vector<ParamSpec>& params) {
  params.push_back({.key = "true_sequential",
                    .label = "True sequential",
                    .help = "Captures inputs again after each stage of a block: slower, slightly better.",
                    .fallback = false});
  params.push_back({.key = "nsamples",
                    .label = "Windows",
                    .help = "Calibration windows; more is slower and, up to some hundred, better.",
                    .fallback = 128,
                    .domain = IntRange{1, 65536}});
  params.push_back({.key = "seqlen",
                    .label = "Window length",
                    .help = "Tokens of a calibration window; cut to the model's context.",
                    .fallback = 2048,
                    .domain = IntRange{2, 1048576},
                    .unit = "token"});
  params.push_back({.key = "seed",
                    .label = "Seed",
                    .help = "Of the random starts of the windows.",
                    .fallback = 0,
                    .domain = IntRange{0, 2147483647},
                    .advanced = true});
}

void append_stored_scale_params(std::vector<ParamSpec>& params) {
  params.push_back({.key = "scale_dtype",
                    .label = "Scale type",
                    .help = "Type in which scales are kept; f32 is exact and twice as large.",
                    .fallback = std::string("f16"),
                    .domain = Choices{{"f16", "bf16", "f32"}},
                    .advanced = true});
  params.push_back({.key = "store_then_quantize",
                    .label = "Store, then quantize",
                    .help = "Computes codes from the rounded scale instead of the exact one.",
                    .fallback = false,
                    .advanced = true});
  params.push_back({.key = "compat_reference",
                    .label = "Published quirks",
                    .help = "Symmetric rows without a negative value are clipped to about half, as in the published "
                            "code.",
                    .fallback = false,
                    .advanced = true});
}

std::string setup_line(const std::string& method, const ParamSet& params) {
  std::string line = method;
  for (const auto& [key, value] : params) line += (line == method ? ":" : ",") + key + "=" + format_value(value);
  return line;
}

void note_few_tokens(LayerProgress& progress, std::int64_t in_features) {
  if (progress.tokens == 0 || progress.tokens >= in_features) return;
  progress.notes.push_back("Only " + std::to_string(progress.tokens) + " tokens reached " +
                           std::to_string(in_features) + " input columns: H has at most rank " +
                           std::to_string(progress.tokens) + ". Use more windows.");
}

double rounding_loss(const at::Tensor& weight, const at::Tensor& hessian, const AffineQuantizer& affine,
                     std::int64_t group_size) {
  const std::int64_t rows = weight.size(0), in = weight.size(1);
  const std::int64_t step = std::max<std::int64_t>(1, rows / kBaselineRows);
  const at::Tensor sample = weight.index_select(0, at::arange(0, rows, step, at::kLong)).to(at::kFloat).contiguous();
  const std::int64_t group = group_size > 0 ? std::min(group_size, in) : in;
  at::Tensor rounded = at::empty_like(sample);
  for (std::int64_t begin = 0; begin < in; begin += group) {
    const std::int64_t columns = std::min(group, in - begin);
    rounded.narrow(1, begin, columns)
        .copy_(quantize_affine(sample.narrow(1, begin, columns).contiguous(), affine).values);
  }
  const double scale = static_cast<double>(rows) / static_cast<double>(sample.size(0));
  return scale * proxy_loss(sample - rounded, hessian);
}

}  // namespace qs
