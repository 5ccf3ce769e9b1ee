#include <ATen/ATen.h>

#include <nlohmann/json.hpp>
#include <tuple>

#include "backend/methods/bcq.h"
#include "backend/methods/golden.h"
#include "backend/methods/lut_linear.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

using nlohmann::json;

/// A uniform grid and what it becomes in planes.
GoldenOutput run_from_codes(const GoldenCase& golden, const json& params) {
  WeightQuantizer grid;
  grid.affine.bits = params.at("bits").get<int>();
  grid.affine.symmetric = params.at("sym").get<bool>();
  grid.affine.scale_type = ScaleType::F32;
  grid.affine.compat_reference = true;
  grid.group_size = params.at("group_size").get<std::int64_t>();
  grid.granularity = grid.group_size > 0 ? Granularity::Group : Granularity::PerChannel;
  const WeightCodes codes = quantize_weight_codes(golden_input(golden, "w"), grid, golden.name);
  const BcqWeight planes = bcq_from_codes(codes, grid.affine.bits, ScaleType::F32, golden.name);
  const at::Tensor packed = pack_sign_runs(planes.codes, grid.affine.bits);
  GoldenOutput output;
  output.tensors = {{"scale", codes.scale},      {"zero", codes.zero_point}, {"codes", codes.codes},
                    {"alpha", planes.alpha},     {"offset", planes.offset},  {"q", planes.values},
                    {"packed_reference", packed}};
  const double error =
      (planes.values - codes.values).abs().max().item<double>() / codes.values.abs().max().item<double>();
  output.checks.push_back({"planes against scale * (code - zero)", "abs 1e-5 of the largest", error <= 1e-5, error});
  const at::Tensor back = unpack_sign_runs(packed, codes.codes.size(0), codes.codes.size(1), grid.affine.bits);
  output.checks.push_back({"signs read back", "exact", at::equal(back, planes.codes), 0.0});
  return output;
}

}  // namespace

/// Cases of naver-aics/lut-gemm's examples: weights in, planes and alphas out.
GoldenOutput run_golden_bcq(const GoldenCase& golden, const JobContext& job) {
  const json& params = golden.entry.at("params");
  if (!params.contains("rounds")) return run_from_codes(golden, params);
  BcqOptions options;
  options.bits = params.at("bits").get<int>();
  options.group_size = params.at("group_size").get<std::int64_t>();
  options.rounds = params.at("rounds").get<int>();
  options.assign = params.value("assign", std::string()) == "greedy_sign" ? BcqAssign::Greedy : BcqAssign::Nearest;
  options.scale_type = ScaleType::F32;
  const at::Tensor w = golden_input(golden, "w");
  const BcqWeight planes = bcq(w, options, golden.name, job);
  GoldenOutput output;
  output.tensors = {{"alpha", planes.alpha}, {"bits", planes.codes}, {"q", planes.values}};
  if (params.contains("mse")) {
    const double mse = (planes.values - w.to(at::kFloat)).to(at::kDouble).square().mean().item<double>();
    const double error = std::abs(mse / params.at("mse").get<double>() - 1.0);
    output.checks.push_back({"mean squared error", "rel 1e-3", error <= 1e-3, error});
  }
  return output;
}

/// Cases of the LUT-GEMM layout: inputs, planes and alphas in, products out. Alphas are f32 there.
GoldenOutput run_golden_lut_gemm(const GoldenCase& golden, const JobContext&) {
  const at::Tensor x = golden_input(golden, "x").to(at::kFloat).contiguous(),
                   words = golden_input(golden, "b_weight").to(at::kInt).contiguous(),
                   alpha = golden_input(golden, "alpha").to(at::kFloat).contiguous();
  const at::Tensor offset =
      golden.inputs.count("q_bias") ? golden_input(golden, "q_bias").to(at::kFloat).contiguous() : at::Tensor();
  kernels::BitPlaneWeight weight;
  weight.bits = static_cast<int>(words.size(1));
  weight.out_features = words.size(2);
  weight.in_features = x.size(1);
  weight.group_size = weight.in_features / alpha.size(0);
  weight.planes = reinterpret_cast<const std::uint32_t*>(words.data_ptr<std::int32_t>());
  weight.scale_type = kernels::DenseType::F32;
  weight.alpha = alpha.data_ptr<float>();
  weight.offset = offset.defined() ? offset.data_ptr<float>() : nullptr;
  const kernels::LutGemm product = kernels::kernel_set().lut_gemm;
  at::Tensor y = at::empty({x.size(0), weight.out_features}, at::kFloat), table = at::empty({256}, at::kFloat);
  const auto multiply = [&](kernels::LutArithmetic arithmetic, at::Tensor& into) {
    product(weight, {x.data_ptr<float>(), x.size(0), into.data_ptr<float>(), 0, weight.out_features}, arithmetic);
  };
  multiply(kernels::LutArithmetic::F32, y);
  kernels::lut_table(x.data_ptr<float>(), table.data_ptr<float>());

  GoldenOutput output;
  output.tensors = {{"y", y}, {"lut_token0_block0", table}};
  for (const auto& [arithmetic, name, tolerance] : {std::tuple(kernels::LutArithmetic::Int16, "int16 tables", 1e-3),
                                                    std::tuple(kernels::LutArithmetic::Int8, "int8 tables", 2e-2)}) {
    at::Tensor rounded = at::empty_like(y);
    multiply(arithmetic, rounded);
    const double error = ((rounded - y).norm() / y.norm()).item<double>();
    output.checks.push_back({name, tolerance == 1e-3 ? "rel_fro 1e-3" : "rel_fro 2e-2", error <= tolerance, error});
  }
  return output;
}

}  // namespace qs
