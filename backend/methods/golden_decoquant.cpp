#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <string>

#include "backend/methods/decoquant.h"
#include "backend/methods/golden_kv_support.h"

namespace qs {
namespace {

using nlohmann::json;

Decoquant method_of(const json& params) {
  return Decoquant({{"bits", params.at("bits").get<int>()},
                    {"mode", params.value("mode", "split_hidden")},
                    {"n1", params.value("n1", 0)},
                    {"n2", params.value("n2", 16)},
                    {"factors", 2},
                    {"flush_len", 1024},
                    {"local_remainder", false},
                    {"force", true},  // the case has half as many tokens as channels
                    {"store", params.value("store_dtype", "f16")}});
}

double distance(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).square().sum().sqrt().item<double>();
}

GoldenOutput run_decoquant(const GoldenCase& golden, const JobContext&) {
  const json params = golden.entry.at("params");
  const Decoquant method = method_of(params);
  GoldenOutput output;
  if (golden.entry.value("kind", "") == "formula") {
    const std::int64_t channels = params.at("n1").get<std::int64_t>() * method.block();
    output.numbers["element_bits"] = method.effective_bits({.heads = 1, .kv_heads = 1, .head_dim = channels},
                                                           params.at("tokens").get<std::int64_t>());
    return output;
  }
  const at::Tensor x = golden.inputs.at("x").to(at::kFloat);
  const GroupCodes made = method.quantize_matrix(x);
  const bool by_channel = method.mode() == Decoquant::Mode::ChannelByToken;
  const TwoFactors factors = two_factors(by_channel ? x.t() : x.reshape({-1, method.block()}));
  const at::Tensor product = at::matmul(factors.large.to(at::kDouble), factors.small);
  output.tensors = {
      {"recon_quant", made.values},          {"recon_full", by_channel ? product.t().contiguous() : product},
      {"large_abs", factors.large.abs()},    {"small_abs", factors.small.abs()},
      {"singular_values", factors.singular}, {"scale", made.scale.reshape({-1})}};
  at::Tensor errors = at::full({by_channel ? 1 : 2}, distance(made.values, x), at::kDouble);
  if (!by_channel) errors[1] = distance(quantize_groups(x, method.quantizer()).values, x);
  output.tensors["err_fro"] = errors;
  return output;
}

}  // namespace

GoldenRunner golden_decoquant() { return {"decoquant", run_decoquant}; }

}  // namespace qs
