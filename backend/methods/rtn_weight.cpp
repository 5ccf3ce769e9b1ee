#include "backend/methods/rtn_weight.h"

#include <ATen/ATen.h>

#include "backend/methods/declared_methods.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

Granularity parse_granularity(const std::string& id, std::int64_t group_size) {
  if (group_size == 0 || group_size < -1) {
    throw Error(ErrorCode::InvalidArgument, "'group_size' of rtn must be -1 (the whole row) or positive, found " +
                                                std::to_string(group_size) + ".");
  }
  if (id == "per_tensor") {
    if (group_size > 0) {
      throw Error(ErrorCode::InvalidArgument,
                  "rtn: granularity=per_tensor has one range for the whole weight, so group_size must be -1; found " +
                      std::to_string(group_size) + ".");
    }
    return Granularity::PerTensor;
  }
  return group_size > 0 ? Granularity::Group : Granularity::PerChannel;
}

}  // namespace

void check_width(const std::string& method, const std::string& key, int bits) {
  if ((bits >= 2 && bits <= 8) || bits == 16) return;
  throw Error(ErrorCode::InvalidArgument,
              "'" + key + "' of " + method + " must be 2 to 8, or 16 for off; found " + std::to_string(bits) + ".");
}

QuantizedTensor unquantized(const at::Tensor& weight) {
  QuantizedTensor result;
  result.values = weight;
  result.codes = at::full(weight.sizes(), 255, at::kByte);
  result.full_precision = at::ones(weight.sizes(), at::kBool);
  return result;
}

RtnWeight::RtnWeight(const ParamSet& params) {
  const bool compat = std::get<bool>(params.at("compat_reference"));
  AffineQuantizer& affine = quantizer_.affine;
  affine.bits = std::get<int>(params.at("bits"));
  affine.symmetric = std::get<bool>(params.at("sym"));
  affine.mse_range = std::get<std::string>(params.at("range")) == "mse";
  affine.scale_type = parse_scale_type(std::get<std::string>(params.at("scale_dtype")));
  affine.store_then_quantize = std::get<bool>(params.at("store_then_quantize"));
  affine.compat_reference = compat;
  quantizer_.group_size = std::get<int>(params.at("group_size"));
  quantizer_.granularity = parse_granularity(std::get<std::string>(params.at("granularity")), quantizer_.group_size);

  activations_.bits = std::get<int>(params.at("bits_a"));
  activations_.symmetric = std::get<bool>(params.at("sym_a"));
  activations_.group_size = std::get<int>(params.at("group_size_a"));
  activations_.compat_reference = compat;
  scope_ = parse_activation_scope(std::get<std::string>(params.at("activation_scope")));
  if (!activations_.off() && std::get<bool>(params.at("quantize_attention"))) {
    attention_.bits = activations_.bits;
    attention_.symmetric = activations_.symmetric;
    attention_.values_per_token = std::get<std::string>(params.at("v_axis")) != "channel";
  }
  check_width("rtn", "bits", affine.bits);
  check_width("rtn", "bits_a", activations_.bits);
}

DecoderWeights RtnWeight::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  const auto input = [this](std::int64_t, LinearKind kind) {
    return in_scope(scope_, kind) ? activations_ : ActivationQuantization{};
  };
  DecoderWeights weights =
      quantize_decoder(context.weights ? *context.weights : model.weights(), quantizer_, input, context, job);
  if (!attention_.off()) weights.attention = attention_;
  return weights;
}

QuantizedTensor RtnWeight::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  if (quantizer_.off()) return unquantized(weight);
  return as_quantized_tensor(quantize_weight_codes(weight, quantizer_, name), weight, quantizer_);
}

double RtnWeight::effective_bits(std::int64_t out_features, std::int64_t in_features) const {
  if (quantizer_.granularity == Granularity::Group && !quantizer_.off())
    check_group_divides(in_features, quantizer_.group_size, "weight");
  return quantizer_.effective_bits(out_features, in_features);
}

WeightMethodEntry rtn_weight_method() {
  return {
      {.id = "rtn",
       .title = "RTN",
       .family = MethodFamily::Weight,
       .paper = "",
       .citation = "Round to nearest; ranges as in Frantar et al., GPTQ, ICLR 2023, and aiha-lab/qllm-infer",
       .summary = "Rounds each weight to the nearest step of its row or group; no calibration.",
       .params =
           {{.key = "bits",
             .label = "Weight bits",
             .help = "Width of a weight's code, 2 to 8; fewer is smaller and worse; 16 leaves the weights alone.",
             .fallback = 4,
             .domain = IntRange{2, 16},
             .unit = "bit",
             .aliases = {"bits_w"}},
            {.key = "group_size",
             .label = "Group size",
             .help = "Inputs of a row sharing one scale; smaller is better and larger on disk; -1 is the whole row.",
             .fallback = -1,
             .domain = IntRange{-1, 65536},
             .aliases = {"g", "group_size_w"}},
            {.key = "sym",
             .label = "Symmetric",
             .help = "One range around 0, no zero points; smaller, and worse for one-sided rows.",
             .fallback = false,
             .aliases = {"sym_w"}},
            {.key = "range",
             .label = "Range",
             .help = "minmax keeps the extremes; mse searches the clipping with the least error (80 passes).",
             .fallback = std::string("minmax"),
             .domain = Choices{{"minmax", "mse"}}},
            {.key = "granularity",
             .label = "Granularity",
             .help = "One scale a row, one for the whole weight, or one a group (when a group size is given).",
             .fallback = std::string("per_channel"),
             .domain = Choices{{"per_channel", "per_tensor", "group"}}},
            {.key = "bits_a",
             .label = "Activation bits",
             .help = "Width of the inputs of the linears, one range a token at every forward; 16 is off.",
             .fallback = 16,
             .domain = IntRange{2, 16},
             .unit = "bit"},
            {.key = "sym_a",
             .label = "Symmetric activations",
             .help = "Activations get one range around 0; worse for one-sided ones.",
             .fallback = false,
             .advanced = true},
            {.key = "group_size_a",
             .label = "Activation group size",
             .help = "Channels of a token sharing one range; smaller is better; -1 is the whole token.",
             .fallback = -1,
             .domain = IntRange{-1, 65536},
             .advanced = true},
            {.key = "activation_scope",
             .label = "Activation scope",
             .help = "all: the input of every linear; norm_fed: of q, k, v, gate and up only.",
             .fallback = std::string("all"),
             .domain = Choices{{"all", "norm_fed"}},
             .advanced = true},
            {.key = "quantize_attention",
             .label = "Quantize attention",
             .help = "With activation bits below 16, also quantizes both attention products, as the reference does.",
             .fallback = true,
             .advanced = true},
            {.key = "v_axis",
             .label = "Value axis",
             .help = "Of the values in attention. token: one range a head and token; channel: one a head and channel "
                     "over all tokens, as published (uses future tokens; while decoding it is token).",
             .fallback = std::string("token"),
             .domain = Choices{{"token", "channel"}},
             .advanced = true},
            {.key = "scale_dtype",
             .label = "Scale type",
             .help = "Type in which scales are kept; f32 is exact and twice as large.",
             .fallback = std::string("f16"),
             .domain = Choices{{"f16", "bf16", "f32"}},
             .advanced = true},
            {.key = "store_then_quantize",
             .label = "Store, then quantize",
             .help = "Computes codes from the rounded scale instead of the exact one.",
             .fallback = false,
             .advanced = true},
            {.key = "compat_reference",
             .label = "Published quirks",
             .help = "Symmetric rows without a negative value are clipped to about half, as in the published code.",
             .fallback = false,
             .advanced = true}},
       .presets =
           {{.label = "RTN-4, groups of 128", .params = {{"bits", 4}, {"group_size", 128}}, .source = "common setting"},
            {.label = "RTN-4 per channel", .params = {{"bits", 4}}, .source = "baseline of arXiv:2210.17323"},
            {.label = "RTN W8A8", .params = {{"bits", 8}, {"bits_a", 8}}, .source = "baseline of arXiv:2211.10438"}},
       .may_follow = {"smoothquant"},
       .effective_bits_formula =
           "bits + (16 + bits) / group_size; symmetric: bits + 16 / group_size (f16 scale, zero point of `bits` bits)"},
      [](const ParamSet& params) -> std::unique_ptr<WeightMethod> { return std::make_unique<RtnWeight>(params); }};
}

}  // namespace qs
