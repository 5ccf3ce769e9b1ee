#include "backend/methods/qaq.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/methods/declared_methods.h"
#include "backend/methods/kv_params.h"
#include "backend/methods/qaq_cache.h"
#include "backend/methods/qaq_rows.h"
#include "backend/types/error.h"
#include "kernels/kv_attention.h"

namespace qs {
namespace {

constexpr std::int64_t kMaxVector = 32767;  // outlier indices are 15 bits and a mark

double real_param(const ParamSet& params, const std::string& key) { return std::get<double>(params.at(key)); }
bool flag_param(const ParamSet& params, const std::string& key) { return std::get<bool>(params.at(key)); }

/// [kv_heads, tokens, head_dim] as vectors of the level.
at::Tensor as_vectors(const at::Tensor& x, QaqLevel level) {
  if (level == QaqLevel::Head) return x.reshape({-1, x.size(2)}).contiguous();
  return x.transpose(0, 1).reshape({x.size(1), x.size(0) * x.size(2)}).contiguous();
}

at::Tensor from_vectors(const at::Tensor& vectors, at::IntArrayRef shape, QaqLevel level) {
  if (level == QaqLevel::Head) return vectors.reshape(shape);
  return vectors.reshape({shape[1], shape[0], shape[2]}).transpose(0, 1).contiguous();
}

}  // namespace

QaqTensor qaq_quantize(const QaqSettings& settings, const at::Tensor& vectors, const at::Tensor& tolerance) {
  const at::Tensor x = vectors.to(at::kFloat).contiguous();
  const std::int64_t count = x.size(0), length = x.size(1);
  QaqTensor result{.values = at::empty_like(x),
                   .codes = at::zeros(x.sizes(), at::kShort),
                   .outliers = at::zeros(x.sizes(), at::kBool),
                   .bits = at::zeros({count}, at::kInt),
                   .scale = at::zeros({count}, at::kFloat),
                   .mean = at::zeros({count}, at::kFloat)};
  const at::Tensor limits = tolerance.defined() ? tolerance.to(at::kDouble).contiguous() : at::Tensor();
  const double* const limit = limits.defined() ? limits.data_ptr<double>() : nullptr;
  at::parallel_for(0, count, 64, [&](std::int64_t first, std::int64_t last) {
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(length));
    for (std::int64_t v = first; v < last; ++v) {
      const float* const from = x.data_ptr<float>() + v * length;
      float* const to = result.values.data_ptr<float>() + v * length;
      auto* const codes = reinterpret_cast<std::uint16_t*>(result.codes.data_ptr<std::int16_t>() + v * length);
      bool* const outliers = result.outliers.data_ptr<bool>() + v * length;
      qaq_outliers(from, length, settings.outliers_ratio, mask.data());
      const QaqStatistics statistics = qaq_statistics(from, length, mask.data(), settings.symmetric);
      const int bits = limit != nullptr ? qaq_width(settings, statistics.range, limit[v]) : settings.n_bits;
      const QaqVector vector = qaq_encode(settings, from, length, mask.data(), statistics, bits, codes);
      qaq_decode(settings, vector, codes, length, to);
      for (std::int64_t i = 0; i < length; ++i) {
        outliers[i] = mask[static_cast<std::size_t>(i)] != 0;
        if (outliers[i]) to[i] = from[i];
      }
      result.bits.data_ptr<std::int32_t>()[v] = vector.bits;
      result.scale.data_ptr<float>()[v] = vector.scale;
      result.mean.data_ptr<float>()[v] = vector.mean;
    }
  });
  return result;
}

at::Tensor qaq_attention_rows(const at::Tensor& query, const at::Tensor& key, const CacheShape& shape) {
  const std::int64_t heads = query.size(0), rows = query.size(1), head_dim = query.size(2);
  const std::int64_t kv_heads = key.size(0), tokens = key.size(1), group = heads / kv_heads;
  const double scale = shape.score_scale > 0.0 ? shape.score_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  const at::Tensor q = query.to(at::kFloat).reshape({kv_heads, group * rows, head_dim});
  at::Tensor scores = at::bmm(q, key.to(at::kFloat).contiguous().transpose(1, 2)).mul_(scale);
  if (shape.score_softcap > 0.0) scores = at::tanh(scores / shape.score_softcap) * shape.score_softcap;
  const at::Tensor position = at::arange(tokens, at::kLong).unsqueeze(0),
                   own = at::arange(tokens - rows, tokens, at::kLong).unsqueeze(1);
  at::Tensor hidden = position > own;
  if (shape.sliding_window > 0) hidden = at::logical_or(hidden, position <= own - shape.sliding_window);
  scores = scores.view({kv_heads, group, rows, tokens});
  scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  return at::softmax(scores, -1).amax(1);
}

Qaq::Qaq(const ParamSet& params) {
  const std::string& level = word_param(params, "level");
  settings_ = {.level = level == "token"   ? QaqLevel::Token
                        : level == "layer" ? QaqLevel::Layer
                                           : QaqLevel::Head,
               .symmetric = flag_param(params, "symmetric"),
               .normal = word_param(params, "method") == "normal",
               .outliers_ratio = real_param(params, "outliers_ratio"),
               .n_bits = int_param(params, "n_bits_uniform"),
               .use_attentions = flag_param(params, "use_attentions"),
               .last_n = int_param(params, "last_n_attentions"),
               .target_error = real_param(params, "target_quantization_error"),
               .query_energy = real_param(params, "query_energy"),
               .n_bits_min = int_param(params, "n_bits_min"),
               .n_bits_max = int_param(params, "n_bits_max"),
               .store = store_param(params)};
  if (settings_.use_attentions && settings_.n_bits_min > settings_.n_bits_max) {
    throw Error(ErrorCode::InvalidArgument, "'n_bits_min' of qaq must not exceed n_bits_max, found " +
                                                std::to_string(settings_.n_bits_min) + " and " +
                                                std::to_string(settings_.n_bits_max) + ".");
  }
  if (settings_.use_attentions && settings_.normal) {
    throw Error(ErrorCode::InvalidArgument,
                "qaq: method=normal has no error budget, so widths cannot follow attention. Set use_attentions=false "
                "and n_bits_uniform, or method=uniform.");
  }
}

at::Tensor Qaq::tolerances(const at::Tensor& x, KvRole role, const at::Tensor& attention) const {
  if (!settings_.use_attentions) return {};
  const std::int64_t tokens = x.size(1);
  at::Tensor limits = at::zeros({x.size(0), tokens}, at::kDouble);
  if (role == KvRole::Key) {
    limits.fill_(qaq_key_tolerance(settings_, tokens));
  } else if (attention.defined()) {
    const at::Tensor recent = (settings_.level == QaqLevel::Head ? attention : attention.amax(0, true)).amax(1);
    for (std::int64_t head = 0; head < recent.size(0); ++head) {
      for (std::int64_t t = 0; t < tokens; ++t) {
        limits[head].data_ptr<double>()[t] = qaq_value_tolerance(settings_, tokens, recent[head].data_ptr<float>()[t]);
      }
    }
  }
  limits.narrow(1, std::max<std::int64_t>(0, tokens - settings_.last_n + 1), std::min(tokens, settings_.last_n - 1))
      .zero_();
  return settings_.level == QaqLevel::Head ? limits.reshape({-1}) : limits[0];
}

QuantizedTensor Qaq::quantize_vectors(const at::Tensor& x, const at::Tensor& tolerance) const {
  const at::Tensor held = as_stored(x, settings_.store);
  const QaqTensor made = qaq_quantize(settings_, as_vectors(held, settings_.level), tolerance);
  QuantizedTensor result;
  result.values = from_vectors(made.values, x.sizes(), settings_.level).to(x.scalar_type());
  result.full_precision = from_vectors(made.outliers, x.sizes(), settings_.level);
  if (settings_.widest() <= 8)
    result.codes =
        from_vectors(made.codes.to(at::kByte), x.sizes(), settings_.level).masked_fill(result.full_precision, 255);
  const bool by_head = settings_.level == QaqLevel::Head;
  result.scale = by_head ? made.scale.view({x.size(0), x.size(1)}) : made.scale;
  result.group_min = by_head ? made.mean.view({x.size(0), x.size(1)}) : made.mean;
  if (!settings_.use_attentions && settings_.n_bits <= 8) result.levels = std::int64_t{1} << settings_.n_bits;
  return result;
}

QuantizedTensor Qaq::quantize(const at::Tensor& x, KvRole role, const JobContext& job) const {
  check_kv_tensor(x);
  check_finite(x, role);
  if (const std::string why = cannot_stream(); !why.empty()) throw Error(ErrorCode::Unsupported, why);
  job.checkpoint(0, 1, "QAQ");
  return quantize_vectors(x, tolerances(x, role, {}));
}

QuantizedTensor Qaq::quantize_prompt(const KvPrompt& prompt, KvRole role, const JobContext& job) const {
  if (role == KvRole::Key || !settings_.use_attentions || !prompt.query.defined())
    return quantize(role == KvRole::Key ? prompt.key : prompt.value, role, job);
  check_kv_tensor(prompt.value);
  check_finite(prompt.value, role);
  if (const std::string why = cannot_stream(); !why.empty()) throw Error(ErrorCode::Unsupported, why);
  job.checkpoint(0, 1, "QAQ");
  const std::int64_t tokens = prompt.value.size(1), rows = std::min(tokens, settings_.last_n);
  const at::Tensor attention = tokens == 0 ? at::Tensor()
                                           : qaq_attention_rows(prompt.query.narrow(1, tokens - rows, rows),
                                                                as_stored(prompt.key, settings_.store), prompt.shape);
  return quantize_vectors(prompt.value, tolerances(prompt.value, role, attention));
}

TokenRange Qaq::seen_by_query(KvRole role, std::int64_t position) const {
  // Widths are fixed after the attention of a step.
  return after_prefill(role, position);
}

TokenRange Qaq::after_prefill(KvRole, std::int64_t tokens) const {
  return {0, std::max<std::int64_t>(0, tokens - window())};
}

at::Tensor Qaq::held_in_full_precision(const at::Tensor& x) const {
  return as_stored(x, settings_.store).to(x.scalar_type());
}

std::string Qaq::cannot_stream() const {
  if (settings_.level != QaqLevel::Token) return {};
  return "qaq with level=token shares one scale and width over all layers of a token, which are not known before the "
         "whole forward pass is done. Use level=head or level=layer.";
}

ScaleGroups Qaq::scale_groups(KvRole, const CacheShape& shape) const {
  const std::int64_t channels = shape.kv_heads * shape.head_dim;
  return {.tokens = 1,
          .starts = even_starts(channels, settings_.level == QaqLevel::Head ? shape.head_dim : channels),
          .order = {}};
}

std::unique_ptr<KvCache> Qaq::make_cache(const CacheShape& shape) const {
  check_fits(shape);
  if (const std::string why = cannot_stream(); !why.empty()) throw Error(ErrorCode::Unsupported, why);
  return make_qaq_cache(*this, shape);
}

double Qaq::nominal_bits(double mean_bits, std::int64_t vector) const {
  const double value_bits = 8.0 * static_cast<double>(settings_.value_bytes());
  return mean_bits * (1.0 - settings_.outliers_ratio) + value_bits * settings_.outliers_ratio +
         value_bits * static_cast<double>(settings_.parameters()) / static_cast<double>(vector);
}

double Qaq::stored_bits(double mean_bits, double mean_outliers, std::int64_t vector) const {
  const double value_bits = 8.0 * static_cast<double>(settings_.value_bytes());
  const auto length = static_cast<double>(vector);
  return (mean_bits * (length - mean_outliers) + mean_outliers * (value_bits + 16.0) +
          value_bits * static_cast<double>(settings_.parameters()) + settings_.width_bits()) /
         length;
}

double Qaq::effective_bits(const CacheShape& shape, std::int64_t tokens) const {
  if (tokens <= 0) return 0.0;
  const bool by_head = settings_.level == QaqLevel::Head;
  const std::int64_t channels = shape.kv_heads * shape.head_dim, lanes = by_head ? shape.kv_heads : 1;
  const std::int64_t quantized = after_prefill(KvRole::Key, tokens).size();
  const std::int64_t bytes = lanes * qaq_lane_bytes(settings_, channels / lanes, quantized) +
                             (tokens - quantized) * channels * settings_.value_bytes();
  return 8.0 * static_cast<double>(bytes) / static_cast<double>(tokens * channels);
}

void Qaq::check_fits(const CacheShape& shape) const {
  check_head_counts(shape);
  const std::int64_t vector = settings_.level == QaqLevel::Head ? shape.head_dim : shape.kv_heads * shape.head_dim;
  if (shape.head_dim > kernels::kMaxHeadDim) {
    throw Error(ErrorCode::InvalidArgument, "qaq holds heads of at most " + std::to_string(kernels::kMaxHeadDim) +
                                                " channels, found " + std::to_string(shape.head_dim) + ".");
  }
  if (vector > kMaxVector) {
    throw Error(ErrorCode::InvalidArgument, "qaq: a vector of " + std::to_string(vector) +
                                                " channels is too long for its outlier indices (at most " +
                                                std::to_string(kMaxVector) + "). Use level=head.");
  }
}

KvMethodEntry qaq_method() {
  return {{.id = "qaq",
           .title = "QAQ",
           .family = MethodFamily::Kv,
           .paper = "arXiv:2403.04643",
           .citation = "Dong et al., QAQ: Quality Adaptive Quantization for LLM KV Cache, 2024",
           .summary = "Mixed precision: outliers stay, the width of each vector follows the query energy (keys) or the "
                      "attention it gets (values).",
           .params = {{.key = "level",
                       .label = "Level",
                       .help = "What shares one scale, mean and width: a head of a token, a token in a layer, or a "
                               "token in all layers (analysis only).",
                       .fallback = std::string("head"),
                       .domain = Choices{{"token", "layer", "head"}}},
                      {.key = "symmetric",
                       .label = "Symmetric",
                       .help = "Centre the grid on 0 instead of on the mean; saves 16 bits a vector, is worse for "
                               "skewed ones.",
                       .fallback = false},
                      {.key = "method",
                       .label = "Quantizer",
                       .help = "uniform has equal steps, normal has cells of equal probability of a normal "
                               "distribution; normal needs a fixed width.",
                       .fallback = std::string("uniform"),
                       .domain = Choices{{"uniform", "normal"}}},
                      {.key = "outliers_ratio",
                       .label = "Outliers",
                       .help = "Fraction of each vector kept in 16 bits; larger is better and larger in memory.",
                       .fallback = 0.01,
                       .domain = RealRange{0.0, 0.2},
                       .aliases = {"outliers"}},
                      {.key = "n_bits_uniform",
                       .label = "Fixed bits",
                       .help = "Width of every code when widths do not follow attention; 16 keeps f16.",
                       .fallback = 2,
                       .domain = IntRange{0, 16},
                       .unit = "bit",
                       .aliases = {"n_bits"}},
                      {.key = "use_attentions",
                       .label = "Widths follow attention",
                       .help = "Choose each vector's width by its error budget; off gives all the fixed width.",
                       .fallback = true},
                      {.key = "last_n_attentions",
                       .label = "Attention window",
                       .help = "Newest tokens kept in full precision, whose attention sets the widths of older ones.",
                       .fallback = 5,
                       .domain = IntRange{1, 1024},
                       .unit = "tokens",
                       .aliases = {"last_n"}},
                      {.key = "target_quantization_error",
                       .label = "Error budget",
                       .help = "Tolerated error; larger gives fewer bits and worse output.",
                       .fallback = 3.0,
                       .domain = RealRange{1e-6, 1e6},
                       .aliases = {"err"}},
                      {.key = "n_bits_min",
                       .label = "Fewest bits",
                       .help = "Smallest width that attention may choose; 0 keeps the mean alone.",
                       .fallback = 1,
                       .domain = IntRange{0, 16},
                       .unit = "bit"},
                      {.key = "n_bits_max",
                       .label = "Most bits",
                       .help = "Largest width that attention may choose.",
                       .fallback = 4,
                       .domain = IntRange{0, 16},
                       .unit = "bit"},
                      {.key = "query_energy",
                       .label = "Query energy",
                       .help = "Squared norm of a query that keys are prepared for; larger gives keys more bits.",
                       .fallback = 300.0,
                       .domain = RealRange{1e-6, 1e9},
                       .advanced = true,
                       .aliases = {"q_norm"}},
                      store_spec()},
           .presets = {{.label = "QAQ, 1 to 4 bits by attention",
                        .params = {{"outliers_ratio", 0.01}, {"target_quantization_error", 3.0}},
                        .source = "arXiv:2403.04643; ClubieDong/QAQ-KVCacheQuantization, explored grid"},
                       {.label = "QAQ, 0 to 2 bits by attention, error 10",
                        .params = {{"n_bits_min", 0}, {"n_bits_max", 2}, {"target_quantization_error", 10.0}},
                        .source = "ClubieDong/QAQ-KVCacheQuantization, explored grid"},
                       {.label = "QAQ, fixed 2 bits with outliers",
                        .params = {{"use_attentions", false}, {"n_bits_uniform", 2}, {"outliers_ratio", 0.01}},
                        .source = "ClubieDong/QAQ-KVCacheQuantization, explored grid"},
                       {.label = "QAQ, fixed 2 bits without outliers",
                        .params = {{"use_attentions", false}, {"n_bits_uniform", 2}, {"outliers_ratio", 0.0}},
                        .source = "ClubieDong/QAQ-KVCacheQuantization, explored grid"}},
           .effective_bits_formula =
               "stored: (bits * (N - o) + 32 o + 32 + 4) / N with o outliers among N elements (16 fewer when "
               "symmetric); nominal as published: bits * (1 - ratio) + 16 * ratio + 32 / N; the newest tokens at 16"},
          [](const ParamSet& params, const KvLayerArtifact*) -> std::unique_ptr<KvMethod> {
            return std::make_unique<Qaq>(params);
          }};
}

}  // namespace qs
