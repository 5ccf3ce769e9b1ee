#include "backend/evaluation/apply.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/evaluation/kv_overlay.h"
#include "backend/evaluation/tensor_bridge.h"
#include "backend/method_registry.h"
#include "backend/model/torch_error.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr std::int64_t kQueries = 512;  // queries whose attention is compared, spread evenly
constexpr std::int64_t kQueryStep = 64;

std::string percent(double fraction) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100.0 * fraction);
  return text;
}

void self_check(TensorReport& report, std::int64_t tokens) {
  if (tokens > 0 && report.tokens_full_precision == tokens) {
    report.warnings.push_back("All " + std::to_string(tokens) +
                              " tokens are still in full precision: the prompt fits the window of this setup.");
  } else if (report.changed_fraction > 0.0 && report.changed_fraction < 0.01) {
    report.warnings.push_back("Only " + percent(report.changed_fraction) + " of the elements changed.");
  }
  if (report.levels > 4 && report.levels_used > 0 && report.levels_used * 2 < report.levels) {
    report.warnings.push_back("Only " + std::to_string(report.levels_used) + " of " + std::to_string(report.levels) +
                              " code levels are used.");
  }
  if (report.levels > 4 && report.saturated_fraction > 0.5) {
    report.warnings.push_back(percent(report.saturated_fraction) + " of the codes lie at an end of the range.");
  }
}

/// Keys or values as the cache holds them after the prompt, with the codes of the part that is quantized.
/// @param kept  undefined, or which tokens stay: the method then marks itself what is in full precision
QuantizedTensor cached_tensor(const KvMethod& method, const KvPrompt& prompt, KvRole role, TokenRange range,
                              const at::Tensor& kept, const JobContext& job) {
  const at::Tensor& x = role == KvRole::Key ? prompt.key : prompt.value;
  QuantizedTensor quantized = method.quantize_prompt(prompt, role, job);
  if (kept.defined()) return quantized;
  const at::Tensor position = at::arange(x.size(1), at::kLong);
  const at::Tensor outside = at::logical_or(position < range.begin, position >= range.end).view({1, -1, 1});
  quantized.values = at::where(outside, method.held_in_full_precision(x), quantized.values);
  if (quantized.codes.defined()) quantized.codes = quantized.codes.masked_fill(outside, 255);
  const at::Tensor none = outside.expand(x.sizes());
  quantized.full_precision =
      quantized.full_precision.defined() ? at::logical_or(quantized.full_precision, none) : none.contiguous();
  return quantized;
}

/// Attention output of queries at `positions`, f32 [heads, queries, head_dim].
/// @param kept  bool [kv_heads, tokens]: others are hidden from later queries; undefined: all are seen
at::Tensor attention_rows(const at::Tensor& query, const at::Tensor& positions, const at::Tensor& key,
                          const at::Tensor& value, const AttentionRules& rules, const at::Tensor& kept) {
  const std::int64_t heads = query.size(0), rows = query.size(1), head_dim = query.size(2), kv_heads = key.size(0),
                     tokens = key.size(1);
  const at::Tensor part = query.reshape({kv_heads, heads / kv_heads * rows, head_dim});
  const double scale = rules.score_scale > 0.0 ? rules.score_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  at::Tensor scores = at::bmm(part, key.transpose(1, 2)).mul_(scale).view({heads, rows, tokens});
  if (rules.score_softcap > 0.0) scores.div_(rules.score_softcap).tanh_().mul_(rules.score_softcap);
  const at::Tensor distance = positions.unsqueeze(1) - at::arange(tokens, at::kLong).unsqueeze(0);
  at::Tensor hidden = distance < 0;
  if (rules.sliding_window > 0) hidden = at::logical_or(hidden, distance >= rules.sliding_window);
  scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  if (kept.defined()) {
    const at::Tensor gone = kept.logical_not().view({kv_heads, 1, 1, tokens}).logical_and(distance > 0);
    scores.view({kv_heads, heads / kv_heads, rows, tokens})
        .masked_fill_(gone, -std::numeric_limits<double>::infinity());
  }
  return at::bmm(at::softmax(scores, -1).view({kv_heads, -1, tokens}), value).view({heads, rows, head_dim});
}

struct FunctionalErrors {
  double key = 0.0, value = 0.0;
};

/// Relative errors of the attention output when only the keys, and only the values, are replaced. A token that was
/// evicted is missing from both.
FunctionalErrors functional_errors(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                   const at::Tensor& key_seen, const at::Tensor& value_seen,
                                   const AttentionRules& rules, const at::Tensor& kept, const JobContext& job) {
  const std::int64_t tokens = query.size(1), stride = std::max<std::int64_t>(1, (tokens + kQueries - 1) / kQueries);
  double signal = 0.0, key_noise = 0.0, value_noise = 0.0;
  const at::Tensor chosen = at::arange(tokens - 1, -1, -stride, at::kLong).flip(0).contiguous();
  for (std::int64_t begin = 0; begin < chosen.numel(); begin += kQueryStep) {
    job.checkpoint(begin, chosen.numel(), "Comparing attention");
    const at::Tensor positions = chosen.narrow(0, begin, std::min(kQueryStep, chosen.numel() - begin));
    const at::Tensor rows = query.index_select(1, positions);
    const at::Tensor reference = attention_rows(rows, positions, key, value, rules, {});
    const auto noise = [&](const at::Tensor& k, const at::Tensor& v) {
      return (attention_rows(rows, positions, k, v, rules, kept) - reference).square().sum().item<double>();
    };
    signal += reference.square().sum().item<double>();
    key_noise += noise(key_seen, value);
    value_noise += noise(key, value_seen);
  }
  if (signal == 0.0) return {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::quiet_NaN()};
  return {std::sqrt(key_noise / signal), std::sqrt(value_noise / signal)};
}

void check_artifact(const KvArtifact& artifact, const CaptureInfo& info) {
  if (artifact.model_fingerprint == info.model_fingerprint) return;
  throw Error(ErrorCode::InvalidArgument, "The calibration on '" + artifact.source + "' was made on '" +
                                              artifact.model_name + "', the capture '" + info.path + "' on '" +
                                              info.model_name + "'. Calibrate with that model.");
}

AppliedTensor applied(const std::string& name, const at::Tensor& original, const QuantizedTensor& quantized,
                      TokenRange range) {
  AppliedTensor result;
  result.report = report_tensor(name, original, quantized);
  result.original = as_view(original);
  result.reconstructed = as_view(quantized.values);
  if (quantized.codes.defined()) result.codes = as_view(quantized.codes);
  result.quantized = range;
  return result;
}

}  // namespace

AppliedLayer apply_to_capture(const Setup& whole_setup, CaptureReader& capture, std::int64_t layer,
                              const JobContext& job, const KvArtifact* artifact) {
  const CaptureInfo& info = capture.info();
  if (layer < 0 || layer >= info.layers) {
    throw Error(ErrorCode::InvalidArgument, "The capture '" + info.path + "' has the layers 0 to " +
                                                std::to_string(info.layers - 1) + ", not " + std::to_string(layer) +
                                                ".");
  }
  const Setup& setup = setup_of_layer(whole_setup, layer);
  return translate_torch_errors("Applying " + setup.method + " to layer " + std::to_string(layer), [&] {
    const c10::NoGradGuard no_grad;
    const AttentionRules rules = info.rules_of(layer);
    const CacheShape shape{.heads = info.heads,
                           .kv_heads = info.kv_heads,
                           .head_dim = info.head_dim,
                           .rope = info.rope_of(layer),
                           .score_scale = rules.score_scale,
                           .score_softcap = rules.score_softcap,
                           .sliding_window = rules.sliding_window,
                           .layer = layer,
                           .layers = info.layers};
    std::shared_ptr<const KvMethod> method = make_kv_method(setup);
    method->check_fits(shape);
    const bool pre_rope = method->key_domain() == KeyDomain::PreRope;
    const std::string key_tap = pre_rope ? "key_pre_rope" : "key";
    const TensorView key_view = capture.read_layer(layer, key_tap), value_view = capture.read_layer(layer, "value");
    const at::Tensor key = as_tensor(key_view), value = as_tensor(value_view);
    std::shared_ptr<const KvPlan> plan;
    const bool own_calibration = artifact == nullptr && needs_kv_calibration(setup);
    if (own_calibration) {
      method = make_kv_method_for(setup, {.query = {}, .key = key, .value = value, .shape = shape}, 42);
    } else if (artifact != nullptr) {
      check_artifact(*artifact, info);
      plan = make_kv_plan(whole_setup, info.layers, artifact);
      method = std::shared_ptr<const KvMethod>(plan, &plan->layer(layer));
    }
    const bool has_query = capture.has(layer_dataset(layer, "query"));
    const TensorView query_view = has_query ? capture.read_layer(layer, "query") : TensorView{};
    const KvPrompt prompt{has_query ? as_tensor(query_view) : at::Tensor(), key, value, shape};
    AppliedLayer result = apply_to_prompt(*method, prompt, rules, job);
    result.key.report.name = layer_dataset(layer, key_tap);
    result.value.report.name = layer_dataset(layer, "value");
    if (own_calibration) {
      for (AppliedTensor* tensor : {&result.key, &result.value})
        tensor->report.warnings.push_back(
            "Calibrated on this layer of the capture itself; on other text the error is larger. Name a calibration to "
            "see that.");
    }
    return result;
  });
}

AppliedLayer apply_to_prompt(const KvMethod& method, const KvPrompt& prompt, const AttentionRules& rules,
                             const JobContext& job) {
  const c10::NoGradGuard no_grad;
  const at::Tensor &key = prompt.key, &value = prompt.value;
  const std::int64_t tokens = key.size(1);
  const bool pre_rope = method.key_domain() == KeyDomain::PreRope, has_query = prompt.query.defined();
  const TokenRange key_range = method.after_prefill(KvRole::Key, tokens),
                   value_range = method.after_prefill(KvRole::Value, tokens);
  const at::Tensor kept = method.kept_after_prompt(prompt);
  const QuantizedTensor key_seen = cached_tensor(method, prompt, KvRole::Key, key_range, kept, job.part(0.0, 0.3));
  const QuantizedTensor value_seen =
      cached_tensor(method, prompt, KvRole::Value, value_range, kept, job.part(0.3, 0.5));

  AppliedLayer result{applied("key", key, key_seen, key_range), applied("value", value, value_seen, value_range), {}};
  result.key.overlay = make_overlay(method, prompt.shape, KvRole::Key, key, key_seen, key_range, kept);
  result.value.overlay = make_overlay(method, prompt.shape, KvRole::Value, value, value_seen, value_range, kept);
  const auto rotated = [&](const at::Tensor& x) { return pre_rope ? apply_rope(x, 0, prompt.shape.rope) : x; };
  const at::Tensor keys_seen = rotated(key_seen.values.to(at::kFloat));
  result.keys_seen = as_view(keys_seen);
  if (has_query) {
    const FunctionalErrors errors =
        functional_errors(prompt.query, rotated(key), value, keys_seen, value_seen.values.to(at::kFloat), rules, kept,
                          job.part(0.5, 1.0));
    result.key.report.functional_error = errors.key;
    result.value.report.functional_error = errors.value;
    result.key.report.functional_metric = "relative error of softmax(QK')V";
    result.value.report.functional_metric = "relative error of softmax(QK)V'";
  }

  CacheStats stats;
  if (method.cannot_stream().empty()) {
    const auto cache = method.make_cache(prompt.shape);
    if (has_query) cache->observe_prompt(prompt.query);
    cache->prefill(key, value);
    stats = cache->stats();
  }
  for (AppliedTensor* tensor : {&result.key, &result.value}) {
    tensor->report.parts = stats;
    tensor->report.packed_bytes = stats.bytes();
    tensor->report.effective_bits =
        stats.tokens > 0 ? stats.effective_bits() : method.effective_bits(prompt.shape, tokens);
    self_check(tensor->report, tokens);
    if (tensor->overlay.evicted_tokens > 0) {
      const double share =
          static_cast<double>(tensor->overlay.evicted_tokens) / static_cast<double>(tokens * tensor->overlay.kv_heads);
      tensor->report.warnings.push_back(
          percent(share) +
          " of the tokens were evicted; the reconstruction error does not count them, the "
          "error of the attention output does.");
    }
  }
  return result;
}

AppliedTensor apply_to_weight(const Setup& setup, const TensorView& weight, const std::string& name) {
  if (weight.shape.size() != 2 || weight.empty()) {
    throw Error(ErrorCode::InvalidArgument,
                "'" + name + "' is not a matrix with elements; a weight [out_features, in_features] was expected.");
  }
  return translate_torch_errors("Applying " + setup.method + " to '" + name + "'", [&] {
    const c10::NoGradGuard no_grad;
    const auto method = make_weight_method(setup);
    const at::Tensor original = as_tensor(weight);
    AppliedTensor result = applied(name, original, method->quantize_weight(original, name), {});
    TensorReport& report = result.report;
    report.effective_bits = method->effective_bits(weight.shape[0], weight.shape[1]);
    report.packed_bytes = std::llround(report.effective_bits * static_cast<double>(weight.size()) / 8.0);
    self_check(report, 0);
    return result;
  });
}

}  // namespace qs
