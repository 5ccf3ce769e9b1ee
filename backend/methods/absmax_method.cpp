#include "backend/methods/absmax_method.h"

#include <ATen/ATen.h>

#include "backend/methods/absmax.h"
#include "backend/methods/declared_methods.h"
#include "backend/methods/measured_bits.h"
#include "backend/methods/rtn_weight.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

/// `rows` rounded step by step in its own type, [rows, 1] scales or one for all.
at::Tensor native_values(const at::Tensor& rows, int bits, bool per_tensor) {
  const at::Tensor view = per_tensor ? rows.reshape({1, -1}) : rows;
  return fake_quantize_absmax_native(view, bits).view(rows.sizes());
}

}  // namespace

at::Tensor AbsmaxActivation::apply(const at::Tensor& x) const {
  if (off() || x.numel() == 0) return x;
  if (native) return native_values(x, bits, per_tensor);
  ActivationQuantization quantization;
  quantization.bits = bits;
  quantization.quantizer = QuantizerKind::Absmax;
  quantization.per_tensor = per_tensor;
  return fake_quantize(x, quantization);
}

AbsmaxActivationLinear::AbsmaxActivationLinear(std::shared_ptr<const LinearOp> inner, AbsmaxActivation input,
                                               AbsmaxActivation output)
    : inner_(std::move(inner)), input_(input), output_(output) {}

AbsmaxMethod::AbsmaxMethod(const ParamSet& params) {
  native_ = std::get<std::string>(params.at("compute")) == "native";
  quantizer_.kind = QuantizerKind::Absmax;
  quantizer_.affine.bits = std::get<int>(params.at("bits_w"));
  quantizer_.affine.scale_type = parse_scale_type(std::get<std::string>(params.at("scale_dtype")));
  if (std::get<std::string>(params.at("weight_quant")) == "per_tensor") quantizer_.granularity = Granularity::PerTensor;
  activation_ = {std::get<int>(params.at("bits_a")), std::get<std::string>(params.at("act_quant")) == "per_tensor",
                 native_};
  keys_and_values_ = std::get<std::string>(params.at("scope")) == "kv";
  outputs_of_qkv_ = std::get<bool>(params.at("quantize_bmm_input"));
  check_width("absmax", "bits_w", quantizer_.affine.bits);
  check_width("absmax", "bits_a", activation_.bits);
  if (keys_and_values_ && outputs_of_qkv_) {
    throw Error(ErrorCode::InvalidArgument,
                "absmax: quantize_bmm_input belongs to scope=all; scope=kv quantizes the outputs of k and v anyway.");
  }
}

std::shared_ptr<const LinearOp> AbsmaxMethod::quantize(const LinearSlot& slot, WeightExecution execution,
                                                       at::ScalarType compute_type) const {
  const bool to_attention = slot.kind == LinearKind::Q || slot.kind == LinearKind::K || slot.kind == LinearKind::V;
  const AbsmaxActivation input = keys_and_values_ ? AbsmaxActivation{} : activation_;
  const AbsmaxActivation output =
      keys_and_values_ || (outputs_of_qkv_ && to_attention) ? activation_ : AbsmaxActivation{};
  const LinearOp& linear = **slot.op;
  std::shared_ptr<const LinearOp> result = *slot.op;
  bool input_done = false;
  if (native_ && !quantizer_.off()) {
    const at::Tensor weight = finite_weight(linear.weight(), slot.name).to(compute_type);
    const bool per_tensor = quantizer_.granularity == Granularity::PerTensor;
    result = std::make_shared<DenseLinear>(native_values(weight, quantizer_.affine.bits, per_tensor), linear.bias());
  } else if (!quantizer_.off()) {
    ActivationQuantization fused;
    if (!input.native) {
      fused.bits = input.bits;
      fused.quantizer = QuantizerKind::Absmax;
      fused.per_tensor = input.per_tensor;
      input_done = true;
    }
    result = make_quantized_linear(quantize_weight_codes(linear.weight(), quantizer_, slot.name), quantizer_,
                                   linear.bias(), fused, execution, compute_type);
  }
  const AbsmaxActivation before = input_done ? AbsmaxActivation{} : input;
  if (before.off() && output.off()) return result;
  return std::make_shared<AbsmaxActivationLinear>(std::move(result), before, output);
}

DecoderWeights AbsmaxMethod::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  if (native_ && context.execution == WeightExecution::Packed) {
    throw Error(ErrorCode::Unsupported,
                "absmax: compute=native rounds scales and products to the model's type, so that its values are on no "
                "grid that codes could be kept for. Use --execution simulated, or compute=f32.");
  }
  DecoderWeights weights = context.weights ? *context.weights : model.weights();
  const std::vector<LinearSlot> slots = linear_slots(weights);
  const auto count = static_cast<std::int64_t>(slots.size());
  for (std::int64_t i = 0; i < count; ++i) {
    job.checkpoint(i, count, "Quantizing weights");
    const LinearSlot& slot = slots[static_cast<std::size_t>(i)];
    if (!context.quantizes(slot.layer)) continue;
    require_floating_point(**slot.op, slot.name);
    if (quantizes(slot.kind)) *slot.op = quantize(slot, context.execution, weights.compute_type);
  }
  job.checkpoint(count, count, "Quantizing weights");
  weights.measured_bits = mean_bits_kept_as_floats(model, weights, context, [this](const LinearSlot& slot) {
    return quantizes(slot.kind) ? effective_bits((*slot.op)->out_features(), (*slot.op)->in_features()) : 16.0;
  });
  return weights;
}

QuantizedTensor AbsmaxMethod::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  const bool of_keys_or_values = name.find("k_proj") != std::string::npos || name.find("v_proj") != std::string::npos;
  if (quantizer_.off() || (keys_and_values_ && !of_keys_or_values)) return unquantized(weight);
  QuantizedTensor result = as_quantized_tensor(quantize_weight_codes(weight, quantizer_, name), weight, quantizer_);
  if (native_)
    result.values = native_values(weight, quantizer_.affine.bits, quantizer_.granularity == Granularity::PerTensor);
  return result;
}

double AbsmaxMethod::effective_bits(std::int64_t out_features, std::int64_t in_features) const {
  return quantizer_.effective_bits(out_features, in_features);
}

WeightMethodEntry absmax_method() {
  const auto wide = [](int bits, const char* source) {
    return Preset{"DecoQuant W" + std::to_string(bits) + "A" + std::to_string(bits),
                  {{"bits_w", bits}, {"bits_a", bits}, {"scope", std::string("kv")}},
                  source};
  };
  const char* const deco = "arXiv:2405.12591, OPT";
  return {
      {.id = "absmax",
       .title = "Absmax",
       .family = MethodFamily::WeightActivation,
       .paper = "",
       .citation = "mit-han-lab/smoothquant, fake_quant; W_A_ settings of Liu et al., DecoQuant, ACL 2024",
       .summary = "Symmetric ranges by the largest magnitude, without clipping, on weights and activations; no "
                  "calibration.",
       .params = {{.key = "bits_w",
                   .label = "Weight bits",
                   .help = "Width of a weight's code, 2 to 8; 2 is ternary; 16 leaves the weights alone.",
                   .fallback = 8,
                   .domain = IntRange{2, 16},
                   .unit = "bit",
                   .aliases = {"bits"}},
                  {.key = "bits_a",
                   .label = "Activation bits",
                   .help = "Width of the quantized activations at every forward; fewer is worse; 16 is off.",
                   .fallback = 8,
                   .domain = IntRange{2, 16},
                   .unit = "bit"},
                  {.key = "scope",
                   .label = "Scope",
                   .help = "all: weights and inputs of every linear; kv: weights and outputs of k and v only, as "
                           "DecoQuant's W_A_ rows.",
                   .fallback = std::string("all"),
                   .domain = Choices{{"all", "kv"}}},
                  {.key = "weight_quant",
                   .label = "Weight ranges",
                   .help = "One scale an output channel, or one for the whole weight, which a single large row spoils.",
                   .fallback = std::string("per_channel"),
                   .domain = Choices{{"per_channel", "per_tensor"}},
                   .aliases = {"granularity"}},
                  {.key = "act_quant",
                   .label = "Activation ranges",
                   .help = "One scale a token, or one for all tokens of a call.",
                   .fallback = std::string("per_token"),
                   .domain = Choices{{"per_token", "per_tensor"}}},
                  {.key = "quantize_bmm_input",
                   .label = "Quantize outputs of q, k, v",
                   .help = "Also quantizes what enters the attention products, before rotation.",
                   .fallback = false,
                   .advanced = true},
                  {.key = "compute",
                   .label = "Arithmetic",
                   .help = "f32, or native: every step rounded to the model's type, as the published code does.",
                   .fallback = std::string("f32"),
                   .domain = Choices{{"f32", "native"}},
                   .advanced = true},
                  {.key = "scale_dtype",
                   .label = "Scale type",
                   .help = "Type in which scales of weights are kept; f32 is exact and twice as large.",
                   .fallback = std::string("f16"),
                   .domain = Choices{{"f16", "bf16", "f32"}},
                   .advanced = true}},
       .presets = {{.label = "Absmax W8A8", .params = {}, .source = "mit-han-lab/smoothquant, baseline"},
                   {.label = "Absmax W8A8, products too",
                    .params = {{"quantize_bmm_input", true}},
                    .source = "mit-han-lab/smoothquant, baseline"},
                   wide(8, deco),
                   wide(4, deco),
                   wide(2, deco)},
       .may_follow = {"smoothquant"},
       .effective_bits_formula = "bits_w + 16 / in_features, per tensor + 16 / (out_features * in_features); with "
                                 "scope=kv of k_proj and v_proj only"},
      [](const ParamSet& params) -> std::unique_ptr<WeightMethod> { return std::make_unique<AbsmaxMethod>(params); }};
}

}  // namespace qs
