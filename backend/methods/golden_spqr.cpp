#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "backend/methods/golden.h"
#include "backend/methods/hessian.h"
#include "backend/methods/spqr.h"
#include "backend/methods/spqr_grid.h"

namespace qs {
namespace {

using nlohmann::json;

std::int64_t size_or(const json& params, const char* key, std::int64_t absent) {
  const json value = params.value(key, json());
  return value.is_number_integer() ? value.get<std::int64_t>() : absent;
}

GoldenOutput run_leave_one_out(const GoldenCase& golden) {
  const json& params = golden.entry.at("params");
  const at::Tensor w = golden_input(golden, "w").contiguous(),
                   factor = golden_input(golden, "hinv_chol_diag").contiguous();
  at::Tensor gain = at::empty_like(w);
  const std::int64_t columns = w.size(1);
  for (std::int64_t row = 0; row < w.size(0); ++row) {
    leave_one_out_gains(w.data_ptr<float>() + row * columns, factor.data_ptr<float>(), columns,
                        params.at("bits").get<int>(), params.at("sym").get<bool>(),
                        gain.data_ptr<float>() + row * columns);
  }
  GoldenOutput output;
  output.tensors["loo_gain"] = gain;
  return output;
}

}  // namespace

/// Cases of Vahe1994/SpQR: codes and outliers in processing order, statistics group after group.
GoldenOutput run_golden_spqr(const GoldenCase& golden, const JobContext& job) {
  if (golden.inputs.count("hinv_chol_diag")) return run_leave_one_out(golden);
  const json& params = golden.entry.at("params");
  SpqrOptions options;
  options.bits = params.at("bits").get<int>();
  options.symmetric = params.at("sym").get<bool>();
  options.group_size = size_or(params, "groupsize", -1);
  options.qq_scale_bits = static_cast<int>(size_or(params, "qq_scale_bits", 0));
  options.qq_zero_bits = static_cast<int>(size_or(params, "qq_zero_bits", 0));
  options.qq_group_size = size_or(params, "qq_groupsize", 16);
  options.outlier_threshold = params.value("outlier_relative_threshold", std::numeric_limits<double>::infinity());
  options.simplified_outliers = params.value("simplified_outliers", false);
  options.round_zero = params.value("round_zero", false);
  options.order = parse_column_order(params.at("permutation_order").get<std::string>());
  options.percdamp = params.at("percdamp").get<double>();
  options.block_size = params.at("block_size").get<std::int64_t>();
  options.scale_type = ScaleType::F32;

  const at::Tensor w = golden_input(golden, "w"), x = golden_input(golden, "x");
  const at::Tensor bounds = golden_input(golden, "seq_bounds").to(at::kLong);
  HessianSum sum(x.size(1));
  for (std::int64_t i = 0; i < bounds.size(0); ++i) {
    const std::int64_t begin = bounds[i][0].item<std::int64_t>(), end = bounds[i][1].item<std::int64_t>();
    sum.add(x.narrow(0, begin, end - begin), 1, job);
  }
  const at::Tensor hessian = sum.matrix(golden.name);
  const SpqrResult result = spqr(w, hessian, options, golden.name, job);

  at::Tensor outliers = at::zeros(w.sizes(), at::kFloat), mask = at::zeros(w.sizes(), at::kFloat);
  const at::Tensor rows = result.outlier_rows.to(at::kLong);
  const at::Tensor row = at::repeat_interleave(rows.narrow(0, 1, w.size(0)) - rows.narrow(0, 0, w.size(0)));
  const at::Tensor place = row * w.size(1) + result.outlier_columns.to(at::kLong);
  outliers.view({-1}).index_copy_(0, place, result.outlier_values);
  mask.view({-1}).index_fill_(0, place, 1.0);
  GoldenOutput output;
  output.tensors = {{"perm", result.order},
                    {"codes", result.codes},
                    {"outlier_mask", mask},
                    {"outlier_values", outliers},
                    {"q", result.values},
                    {"threshold", at::full({1}, result.threshold)},
                    {"scale", options.quantizes_scales() ? result.scales.codes : result.scale},
                    {"zero", options.quantizes_zeros() ? result.zeros.codes : result.zero_point},
                    {"scale_qq_scale", result.scales.scale},
                    {"scale_qq_zero", result.scales.zero},
                    {"zero_qq_scale", result.zeros.scale},
                    {"zero_qq_zero", result.zeros.zero}};
  // The reference keeps plain statistics and outliers in 16 bits; here they are f32 for the comparison.
  SpqrOptions stored = options;
  stored.scale_type = ScaleType::F16;
  const double error =
      std::abs(stored.average_bits(w.size(1), result.outlier_share) - params.at("avg_bits_exact").get<double>());
  output.checks.push_back({"average bits", "abs 1e-6", error <= 1e-6, error});
  const double expected = params.at("proxy_loss_undamped").get<double>();
  const double loss = proxy_loss(w.to(at::kFloat) - result.values, hessian);
  output.checks.push_back({"proxy loss", "rel 2e-2", std::abs(loss / expected - 1.0) <= 2e-2, loss / expected - 1.0});
  return output;
}

}  // namespace qs
