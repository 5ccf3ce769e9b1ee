#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "backend/methods/golden.h"
#include "backend/methods/gptq.h"
#include "backend/methods/hessian.h"

namespace qs {

/// Cases of IST-DASLab/gptq: sequences of inputs and a weight in, codes and losses out.
GoldenOutput run_golden_gptq(const GoldenCase& golden, const JobContext& job) {
  const nlohmann::json& params = golden.entry.at("params");
  GptqOptions options;
  options.affine.bits = params.at("bits").get<int>();
  options.affine.symmetric = params.at("sym").get<bool>();
  options.affine.mse_range = params.at("mse").get<bool>();
  options.affine.scale_type = ScaleType::F32;
  options.affine.compat_reference = true;
  options.group_size = params.at("group_size").get<std::int64_t>();
  options.act_order = params.at("act_order").get<bool>();
  options.static_groups = params.at("static_groups").get<bool>();
  options.percdamp = params.at("percdamp").get<double>();
  options.block_size = params.at("block_size").get<std::int64_t>();

  const at::Tensor x = golden_input(golden, "x"), bounds = golden_input(golden, "seq_bounds").to(at::kLong);
  HessianSum sum(x.size(1));
  for (std::int64_t i = 0; i < bounds.size(0); ++i) {
    const std::int64_t begin = bounds[i][0].item<std::int64_t>(), end = bounds[i][1].item<std::int64_t>();
    sum.add(x.narrow(0, begin, end - begin), 1, job);
  }
  const at::Tensor hessian = sum.matrix(golden.name);
  const GptqResult result = gptq(golden_input(golden, "w"), hessian, options, golden.name, job);

  GoldenOutput output;
  output.tensors = {{"H", hessian},
                    {"codes", result.codes},
                    {"scale", result.scale},
                    {"zero", result.zero_point},
                    {"g_idx", result.group_index},
                    {"q", result.values},
                    {"perm", result.order},
                    {"row_loss", result.row_loss},
                    {"loss", at::full({1}, result.loss)}};
  const double expected = params.at("gptq_proxy_loss_undamped").get<double>(),
               rtn = params.at("rtn_proxy_loss").get<double>();
  const double error = std::abs(result.undamped_loss / expected - 1.0);
  output.checks.push_back({"undamped loss", "rel 5e-3", error <= 5e-3, error});
  output.checks.push_back({"loss against RTN", "not larger", result.undamped_loss <= rtn, result.undamped_loss / rtn});
  return output;
}

}  // namespace qs
