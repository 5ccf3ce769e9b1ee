#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "backend/methods/absmax.h"
#include "backend/methods/golden.h"
#include "backend/methods/linear_statistics.h"
#include "backend/methods/smoothing.h"
#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using nlohmann::json;

bool starts_with(const std::string& text, const std::string& head) { return text.compare(0, head.size(), head) == 0; }

/// The golden cases come from the published code, quirks included.
AffineQuantizer reference_quantizer(const json& params) {
  AffineQuantizer quantizer;
  quantizer.bits = params.at("bits").get<int>();
  quantizer.symmetric = params.at("sym").get<bool>();
  quantizer.mse_range = params.value("range", std::string("minmax")) == "mse";
  quantizer.scale_type = ScaleType::F32;
  quantizer.compat_reference = true;
  return quantizer;
}

GoldenOutput run_affine(const GoldenCase& golden) {
  const json& params = golden.entry.at("params");
  WeightQuantizer quantizer;
  quantizer.affine = reference_quantizer(params);
  const std::string granularity = params.at("granularity").get<std::string>();
  if (granularity == "per_tensor") quantizer.granularity = Granularity::PerTensor;
  quantizer.group_size = params.at("group_size").get<std::int64_t>();
  if (quantizer.group_size > 0) quantizer.granularity = Granularity::Group;

  const bool activation = golden.inputs.count("x") > 0;
  const at::Tensor matrix = golden_input(golden, activation ? "x" : "w");
  const WeightCodes codes = quantize_weight_codes(matrix, quantizer, golden.name);
  GoldenOutput output;
  output.tensors = {{"codes", codes.codes}, {"scale", codes.scale}, {"zero", codes.zero_point}, {"q", codes.values}};
  if (activation) {
    // What the inputs of linears go through must be the very same numbers.
    ActivationQuantization dynamic{quantizer.affine.bits, quantizer.affine.symmetric, quantizer.group_size};
    dynamic.compat_reference = true;
    output.tensors["q"] = fake_quantize(matrix.to(at::kFloat), dynamic);
  }
  return output;
}

GoldenOutput run_absmax(const GoldenCase& golden) {
  const json& params = golden.entry.at("params");
  const int bits = params.at("bits_w").get<int>();
  const at::Tensor w = golden_input(golden, "w");
  GoldenOutput output;
  if (params.contains("dtype")) {
    output.tensors["wq_per_channel"] = fake_quantize_absmax_native(w, bits);
    return output;
  }
  const at::Tensor x = golden_input(golden, "x");
  WeightQuantizer rows;
  rows.kind = QuantizerKind::Absmax;
  rows.affine.bits = bits;
  rows.affine.scale_type = ScaleType::F32;
  WeightQuantizer whole = rows;
  whole.granularity = Granularity::PerTensor;
  ActivationQuantization token;
  token.bits = params.at("bits_a").get<int>();
  token.quantizer = QuantizerKind::Absmax;
  ActivationQuantization tensor = token;
  tensor.per_tensor = true;

  const WeightCodes per_channel = quantize_weight_codes(w, rows, golden.name);
  const at::Tensor per_token = fake_quantize(x.to(at::kFloat), token);
  output.tensors["wq_per_channel"] = per_channel.values;
  output.tensors["wq_per_tensor"] = quantize_weight_codes(w, whole, golden.name).values;
  output.tensors["xq_per_token"] = per_token;
  output.tensors["xq_per_tensor"] = fake_quantize(x.to(at::kFloat), tensor);
  output.tensors["scale_w_per_channel"] = per_channel.scale;
  output.tensors["scale_x_per_token"] = absmax_scale(x.to(at::kFloat), token.bits);
  output.tensors["y"] = at::matmul(per_token, per_channel.values.t()) + golden_input(golden, "bias").to(at::kFloat);
  return output;
}

GoldenOutput run_rtn(const GoldenCase& golden, const JobContext&) {
  return starts_with(golden.name, "absmax_") ? run_absmax(golden) : run_affine(golden);
}

/// Mean squared error of the layer output over a grid of alphas, absmax per channel and per token (spec 4.5, layer
/// mode).
at::Tensor sweep_errors(const at::Tensor& x, const at::Tensor& w, const at::Tensor& alphas, int bits) {
  WeightQuantizer rows;
  rows.kind = QuantizerKind::Absmax;
  rows.affine.bits = bits;
  rows.affine.scale_type = ScaleType::F32;
  ActivationQuantization token;
  token.bits = bits;
  token.quantizer = QuantizerKind::Absmax;
  const at::Tensor reference = at::matmul(x, w.t()), absmax = at::amax(x.abs(), {0});
  at::Tensor errors = at::empty_like(alphas);
  for (std::int64_t i = 0; i < alphas.numel(); ++i) {
    const at::Tensor scale = smoothing_scales(absmax, {w}, alphas[i].item<float>(), true).scale;
    const at::Tensor kept = quantize_weight_codes(w * scale, rows, "w").values;
    errors[i] = (at::matmul(fake_quantize(x / scale, token), kept.t()) - reference).square().mean();
  }
  return errors;
}

GoldenOutput run_smoothquant(const GoldenCase& golden, const JobContext&) {
  const at::Tensor x = golden_input(golden, "x").to(at::kFloat);
  GoldenOutput output;
  if (golden.inputs.count("alphas")) {
    const at::Tensor w = golden_input(golden, "w").to(at::kFloat), alphas = golden_input(golden, "alphas");
    for (const int bits : {8, 6, 4}) {
      const std::string scheme = "w" + std::to_string(bits) + "a" + std::to_string(bits);
      const at::Tensor errors = sweep_errors(x, w, alphas, bits);
      output.tensors["mse_" + scheme] = errors;
      const double best = golden.entry.at("params").at("best_alpha").at(scheme).get<double>();
      const at::Tensor at_best = errors[(alphas - best).abs().argmin().item<std::int64_t>()];
      const double excess = (at_best / errors.min()).item<double>() - 1.0;
      output.checks.push_back({"best_alpha " + scheme, "within 1 % of the minimum", excess <= 0.01, excess});
    }
    return output;
  }
  const json& params = golden.entry.at("params");
  at::Tensor absmax;
  std::int64_t begin = 0;
  for (const json& batch : params.at("calibration_batches")) {
    const auto tokens = batch.get<std::int64_t>();
    const at::Tensor part = at::amax(x.narrow(0, begin, tokens).abs(), {0});
    absmax = absmax.defined() ? at::maximum(absmax, part) : part;
    begin += tokens;
  }
  std::vector<at::Tensor> weights;
  for (int i = 0; golden.inputs.count("w" + std::to_string(i)); ++i)
    weights.push_back(golden_input(golden, "w" + std::to_string(i)).to(at::kFloat));
  const SmoothingScales scales = smoothing_scales(absmax, weights, params.at("alpha").get<double>(), true);
  output.tensors["act_absmax"] = absmax;
  output.tensors["w_absmax"] = scales.weight_absmax;
  output.tensors["scales"] = scales.scale;
  output.tensors["norm_weight_out"] = golden_input(golden, "norm_weight") / scales.scale;
  if (golden.inputs.count("norm_bias"))
    output.tensors["norm_bias_out"] = golden_input(golden, "norm_bias") / scales.scale;
  for (std::size_t i = 0; i < weights.size(); ++i)
    output.tensors["w" + std::to_string(i) + "_out"] = weights[i] * scales.scale;
  return output;
}

GoldenOutput run_stats(const GoldenCase& golden, const JobContext&) {
  const auto numbers = linear_statistics(golden_input(golden, "x"), golden_input(golden, "xq"),
                                         golden_input(golden, "w"), golden_input(golden, "wq"));
  GoldenOutput output;
  for (const auto& [name, value] : numbers) output.tensors[name] = at::full({1}, value, at::kFloat);
  return output;
}

}  // namespace

std::vector<GoldenRunner> golden_weight_runners() {
  return {{"rtn", run_rtn},
          {"smoothquant", run_smoothquant},
          {"stats", run_stats},
          {"gptq", run_golden_gptq},
          {"spqr", run_golden_spqr},
          {"bcq", run_golden_bcq},
          {"lutgemm", run_golden_lut_gemm},
          {"zeroquant", run_golden_zeroquant}};
}

}  // namespace qs
