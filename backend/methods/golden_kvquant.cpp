#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "backend/methods/golden_kv_support.h"
#include "backend/methods/kvquant.h"
#include "backend/methods/nuq.h"

namespace qs {
namespace {

using nlohmann::json;

at::Tensor doubles(const std::vector<double>& values) { return at::tensor(values, at::kDouble); }

std::vector<double> sorted_column(const at::Tensor& x, std::int64_t channel) {
  const at::Tensor column = x.select(1, channel).to(at::kDouble).contiguous();
  std::vector<double> values(column.data_ptr<double>(), column.data_ptr<double>() + column.numel());
  std::sort(values.begin(), values.end());
  return values;
}

GoldenOutput run_percentiles(const GoldenCase& golden, const json& params) {
  const double upper_fraction = 1.0 - (1.0 - params.at("outlier_threshold").get<double>()) / 2.0;
  const at::Tensor x = golden.inputs.at("x");
  std::vector<double> lower, upper;
  for (std::int64_t channel = 0; channel < x.size(1); ++channel) {
    const std::vector<double> sorted = sorted_column(x, channel);
    lower.push_back(percentile_of_sorted(sorted, 1.0 - upper_fraction));
    upper.push_back(percentile_of_sorted(sorted, upper_fraction));
  }
  GoldenOutput output;
  output.tensors = {{"lower", doubles(lower)}, {"upper", doubles(upper)}};
  return output;
}

GoldenOutput run_kmeans(const GoldenCase& golden, const json& params) {
  const at::Tensor x = golden.inputs.at("x").to(at::kDouble).contiguous();
  const at::Tensor w = golden.inputs.at("weight").to(at::kDouble).contiguous();
  const auto count = static_cast<std::size_t>(x.numel());
  const Clusters clusters =
      weighted_kmeans(places_of({x.data_ptr<double>(), count}, {w.data_ptr<double>(), count}), params.at("clusters"));
  GoldenOutput output;
  output.tensors = {{"centroids_best", doubles(clusters.centroids)}, {"objective_best", doubles({clusters.objective})}};
  return output;
}

ParamSet params_of(const json& params) {
  ParamSet set;
  set["bits"] = params.at("bits").get<int>();
  set["datatype"] = std::string("nuq");
  set["outliers"] = 1.0 - params.value("outlier_threshold", 1.0);
  set["first_few_fp16"] = params.value("first_few_fp16", -1);
  set["q_norm"] = std::string(params.value("q_norm", false) ? "on" : "off");
  set["cap_per_side"] = params.value("cap_outliers", -1) >= 0 ? params.value("cap_per_side", 21) : 0;
  set["fisher_scale"] = true;
  set["integer_zero"] = false;
  set["store"] = params.value("store_dtype", "f16");
  return set;
}

/// x is the token matrix [T, C]; one head holds all channels.
QuantizedTensor quantize(const ParamSet& set, const KvLayerArtifact& artifact, const at::Tensor& x, KvRole role,
                         const JobContext& job) {
  return Kvquant(set, &artifact).quantize(x.to(at::kFloat).unsqueeze(0), role, job);
}

GoldenOutput run_keys(const GoldenCase& golden, const json& params, const JobContext& job) {
  KvLayerArtifact artifact = {{"key_lower", golden.inputs.at("lower")},
                              {"key_upper", golden.inputs.at("upper")},
                              {"key_levels", golden.inputs.at("lut")}};
  if (params.contains("norm_scale")) {
    artifact["key_norm"] =
        at::tensor(std::vector<double>{params.at("norm_scale"), params.at("norm_offset")}, at::kDouble).to(at::kFloat);
  }
  const QuantizedTensor result = quantize(params_of(params), artifact, golden.inputs.at("x"), KvRole::Key, job);
  GoldenOutput output;
  output.tensors = {{"dequant", result.values}, {"outlier_mask", result.full_precision}};
  return output;
}

GoldenOutput run_values(const GoldenCase& golden, const json& params, const JobContext& job) {
  const KvLayerArtifact artifact = {{"value_levels", golden.inputs.at("lut")}};
  const at::Tensor x = golden.inputs.at("x");
  ParamSet set = params_of(params);
  const QuantizedTensor nuq = quantize(set, artifact, x, KvRole::Value, job);
  set["datatype"] = std::string("int");
  const QuantizedTensor sparse = quantize(set, artifact, x, KvRole::Value, job);
  set["outliers"] = 0.0;
  set["first_few_fp16"] = -1;
  set["integer_zero"] = true;
  const QuantizedTensor dense = quantize(set, artifact, x, KvRole::Value, job);
  GoldenOutput output;
  output.tensors = {{"outlier_mask", nuq.full_precision},
                    {"dequant_nuq", nuq.values},
                    {"dequant_int_sparse", sparse.values},
                    {"dequant_int_dense_clamped_zero", dense.values}};
  return output;
}

GoldenOutput run_kvquant(const GoldenCase& golden, const JobContext& job) {
  const json params = golden.entry.value("params", json::object());
  GoldenOutput output;
  if (golden.entry.value("kind", "") == "formula") {
    for (const auto& [role, key] : {std::pair{KvRole::Key, "key_bits"}, std::pair{KvRole::Value, "value_bits"}}) {
      output.numbers[key] = kvquant_published_bits(role, params.at("bits"), params.at("outlier_fraction"),
                                                   params.at("hidden"), params.at("tokens"));
    }
    return output;
  }
  if (golden.inputs.empty()) {
    for (const int bits : {2, 3, 4, 5})
      output.tensors["nf" + std::to_string(bits)] = doubles(normal_float_levels(bits));
    return output;
  }
  if (params.contains("clusters")) return run_kmeans(golden, params);
  if (golden.expected.count("lower")) return run_percentiles(golden, params);
  return golden.inputs.count("lower") ? run_keys(golden, params, job) : run_values(golden, params, job);
}

}  // namespace

GoldenRunner golden_kvquant() { return {"kvquant", run_kvquant}; }

}  // namespace qs
