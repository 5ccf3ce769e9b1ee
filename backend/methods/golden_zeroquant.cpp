#include <ATen/ATen.h>

#include <nlohmann/json.hpp>

#include "backend/methods/golden.h"
#include "backend/methods/lkd.h"
#include "backend/methods/zeroquant.h"
#include "backend/types/error.h"

namespace qs {
namespace {

using nlohmann::json;

RunGrid grid_of(const std::string& type) {
  if (type == "sym") return RunGrid::Symmetric;
  if (type == "asym") return RunGrid::Asymmetric;
  if (type == "ternary") return RunGrid::Ternary;
  if (type == "binary") return RunGrid::Binary;
  throw Error(ErrorCode::BadFormat, "Golden case of zeroquant: type '" + type + "' is not known.");
}

GoldenOutput run_weight(const GoldenCase& golden) {
  const json& params = golden.entry.at("params");
  const at::Tensor w = golden_input(golden, "w").to(at::kFloat).contiguous();
  const RunLayout layout{RunLayout::Kind::NumGroups, params.at("num_groups").get<std::int64_t>()};
  const RunQuantizer quantizer{params.at("bits").get<int>(), grid_of(params.at("type").get<std::string>()),
                               ZeroQuantScale::Code, ScaleType::F32};
  const RunCodes runs = quantize_runs(w.view({-1, layout.length(w.size(0), w.size(1), golden.name)}), quantizer);
  GoldenOutput output;
  output.tensors = {{"q", runs.values}, {"scale", runs.scale}, {"codes", runs.codes.to(at::kFloat) - runs.zero_point}};
  return output;
}

GoldenOutput run_activation(const GoldenCase& golden) {
  const json& params = golden.entry.at("params");
  const at::Tensor x = golden_input(golden, "x").to(at::kFloat);
  TokenQuantization tokens{params.at("bits").get<int>(), params.value("type", std::string("sym")) == "sym"};
  GoldenOutput output;
  if (!golden.inputs.count("min")) {
    output.tensors["q"] = quantize_tokens(x, tokens);
    return output;
  }
  const ActivationRange range{golden_input(golden, "min").item<double>(), golden_input(golden, "max").item<double>()};
  tokens.symmetric = true;
  output.tensors["q_sym"] = quantize_in_range(x, range, tokens);
  tokens.symmetric = false;
  output.tensors["q_asym"] = quantize_in_range(x, range, tokens);
  return output;
}

/// y = W2 gelu(W1 x + b1) + b2, distilled with group-wise weights and token-wise inputs.
GoldenOutput run_distillation(const GoldenCase& golden, const JobContext& job) {
  const json& params = golden.entry.at("params");
  const auto weight = [&](const char* name, const char* groups) {
    const RunLayout layout{RunLayout::Kind::NumGroups, params.at(groups).get<std::int64_t>()};
    const ZeroQuantWeight quantizer{params.at("bits_w").get<int>(), true, ZeroQuantScale::Code, ScaleType::F32, layout};
    return StudentWeight(golden_input(golden, name), quantizer, name);
  };
  const auto vector = [&](const char* name) {
    return golden_input(golden, name).to(at::kFloat).clone().requires_grad_(true);
  };
  StudentWeight w1 = weight("w1", "num_groups_w1"), w2 = weight("w2", "num_groups_w2");
  const at::Tensor b1 = vector("b1"), b2 = vector("b2"), x = golden_input(golden, "x").to(at::kFloat);
  const at::Tensor teacher_w1 = w1.master.clone(), teacher_w2 = w2.master.clone(), teacher_b1 = b1.detach().clone(),
                   teacher_b2 = b2.detach().clone();
  const TokenQuantization tokens{params.at("bits_a").get<int>()};
  const std::int64_t length = params.at("seq").get<std::int64_t>();

  LkdProblem problem;
  problem.parameters = {{w1.master, w1.used, true}, {b1, b1, false}, {w2.master, w2.used, true}, {b2, b2, false}};
  problem.weights = {&w1, &w2};
  problem.windows = x.size(0) / length;
  const auto window = [&](std::int64_t index) { return x.narrow(0, index * length, length); };
  problem.predict = [&](std::int64_t index) {
    const at::Tensor inner = at::gelu(at::linear(straight_through_tokens(window(index), tokens), w1.used, b1));
    return at::linear(straight_through_tokens(inner, tokens), w2.used, b2);
  };
  problem.target = [&](std::int64_t index) {
    return at::linear(at::gelu(at::linear(window(index), teacher_w1, teacher_b1)), teacher_w2, teacher_b2);
  };
  LkdOptions options;
  options.steps = params.at("steps").get<std::int64_t>();
  options.batch = params.at("batch").get<std::int64_t>();
  options.learning_rate = params.at("lr").get<double>();
  options.weight_decay = params.at("weight_decay").get<double>();
  const std::vector<double> losses = distill(problem, options, job);
  GoldenOutput output;
  output.tensors = {{"losses", at::tensor(losses, at::kDouble)},
                    {"w1_out", w1.master},
                    {"b1_out", b1.detach()},
                    {"w2_out", w2.master},
                    {"b2_out", b2.detach()}};
  return output;
}

}  // namespace

/// Cases of microsoft/DeepSpeed's compression quantizers and of the distillation loop.
GoldenOutput run_golden_zeroquant(const GoldenCase& golden, const JobContext& job) {
  if (golden.inputs.count("w1")) return run_distillation(golden, job);
  return golden.inputs.count("w") ? run_weight(golden) : run_activation(golden);
}

}  // namespace qs
