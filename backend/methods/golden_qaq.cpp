#include <ATen/ATen.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>

#include "backend/methods/golden_kv_support.h"
#include "backend/methods/qaq.h"

namespace qs {
namespace {

using nlohmann::json;

QaqSettings settings_of(const json& params) {
  const std::string level = params.value("level", "head");
  return {.level = level == "token"   ? QaqLevel::Token
                   : level == "layer" ? QaqLevel::Layer
                                      : QaqLevel::Head,
          .symmetric = params.value("symmetric", false),
          .normal = params.value("method", "uniform") == "normal",
          .outliers_ratio = params.value("outliers_ratio", 0.0),
          .n_bits = params.value("n_bits_uniform", 2),
          .use_attentions = params.value("use_attentions", false),
          .last_n = params.value("last_n_attentions", 1),
          .target_error = params.value("target_quantization_error", 3.0),
          .query_energy = params.value("q_norm", 300.0),
          .n_bits_min = params.value("n_bits_min", 1),
          .n_bits_max = params.value("n_bits_max", 4),
          .store = params.value("store_dtype", "f16") == "f32" ? GroupStore::F32 : GroupStore::F16};
}

/// One row per vector from [layers, batch, heads, tokens, ...] in the order [batch, token, layer, head].
at::Tensor vectors_of(const at::Tensor& x, QaqLevel level) {
  const at::Tensor ordered = x.permute({1, 3, 0, 2, 4});
  const std::int64_t tokens = ordered.size(0) * ordered.size(1), layers = ordered.size(2), heads = ordered.size(3);
  const std::int64_t vectors = level == QaqLevel::Token   ? tokens
                               : level == QaqLevel::Layer ? tokens * layers
                                                          : tokens * layers * heads;
  return ordered.reshape({vectors, -1}).contiguous();
}

at::Tensor as_cache(const at::Tensor& vectors, at::IntArrayRef shape) {
  return vectors.reshape({shape[1], shape[3], shape[0], shape[2], shape[4]}).permute({2, 0, 3, 1, 4}).contiguous();
}

/// Tolerance of each vector from the last rows of attention [layers, batch, heads, rows, tokens].
at::Tensor tolerances(const QaqSettings& settings, const GoldenCase& golden, std::int64_t tokens,
                      std::int64_t vectors) {
  const std::int64_t per_token = vectors / tokens;  // batch is 1
  at::Tensor limits = at::empty({vectors}, at::kDouble);
  const bool values = golden.inputs.count("attention") > 0;
  at::Tensor paid;
  if (values) {
    const at::Tensor attention = golden.inputs.at("attention").to(at::kFloat);
    paid = vectors_of(attention.amax(3).unsqueeze(-1), settings.level).amax(1);
  }
  for (std::int64_t v = 0; v < vectors; ++v) {
    const bool recent = v / per_token > tokens - settings.last_n;
    limits.data_ptr<double>()[v] = recent   ? 0.0
                                   : values ? qaq_value_tolerance(settings, tokens, paid.data_ptr<float>()[v])
                                            : qaq_key_tolerance(settings, tokens);
  }
  return limits;
}

GoldenOutput run_qaq(const GoldenCase& golden, const JobContext&) {
  const json params = golden.entry.value("params", json::object());
  GoldenOutput output;
  if (golden.entry.value("kind", "") == "formula") {
    const double bits = params.at("bits"), ratio = params.at("outlier_fraction"), word = params.at("word_bits");
    const Qaq method({{"level", std::string("head")},
                      {"symmetric", params.at("extra_words").get<int>() == 1},
                      {"method", std::string("uniform")},
                      {"outliers_ratio", ratio},
                      {"n_bits_uniform", static_cast<int>(bits)},
                      {"use_attentions", false},
                      {"last_n_attentions", 1},
                      {"target_quantization_error", 3.0},
                      {"query_energy", 300.0},
                      {"n_bits_min", 1},
                      {"n_bits_max", 4},
                      {"store", std::string(word == 16.0 ? "f16" : "f32")}});
    output.numbers["nominal_without_indices"] = method.nominal_bits(bits, params.at("head_dim").get<std::int64_t>());
    return output;
  }
  const QaqSettings settings = settings_of(params);
  const at::Tensor cache = golden.inputs.at("cache").to(at::kFloat);
  const at::Tensor x = vectors_of(cache, settings.level);
  const QaqTensor made = qaq_quantize(
      settings, x, settings.use_attentions ? tolerances(settings, golden, cache.size(3), x.size(0)) : at::Tensor());
  const at::Tensor bits = made.bits.to(at::kDouble), outliers = made.outliers.to(at::kDouble);
  const double elements = static_cast<double>(x.numel()), found = outliers.sum().item<double>();
  const double coded = (bits.unsqueeze(1) * (1.0 - outliers)).sum().item<double>();
  const double value_bits = settings.store == GroupStore::F32 ? 32.0 : 16.0;
  output.tensors = {
      {"dequant", as_cache(made.values, cache.sizes())},
      {"outlier_mask", as_cache(made.outliers, cache.sizes())},
      {"n_bits", made.bits},
      // The case counts no parameters, and 16 bits for an outlier that was found whatever the stored type is.
      {"avg_bits_actual", at::full({1}, (coded + 16.0 * found) / elements, at::kDouble)},
      {"avg_bits_nominal",
       at::full({1},
                bits.mean().item<double>() * (1.0 - settings.outliers_ratio) + value_bits * settings.outliers_ratio,
                at::kDouble)}};
  return output;
}

}  // namespace

GoldenRunner golden_qaq() { return {"qaq", run_qaq}; }

}  // namespace qs
