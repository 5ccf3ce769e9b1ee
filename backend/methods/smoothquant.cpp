#include "backend/methods/smoothquant.h"

#include <ATen/ATen.h>

#include "backend/methods/declared_methods.h"
#include "backend/methods/rtn_weight.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {

SmoothQuant::SmoothQuant(const ParamSet& params) {
  const bool compat = std::get<bool>(params.at("compat_reference"));
  smoothing_.alpha = std::get<double>(params.at("alpha"));
  smoothing_.extended = std::get<bool>(params.at("extended"));
  smoothing_.compat_reference = compat;

  quantizer_.kind = parse_quantizer(std::get<std::string>(params.at("quantizer")));
  quantizer_.affine.bits = std::get<int>(params.at("bits_w"));
  quantizer_.affine.scale_type = parse_scale_type(std::get<std::string>(params.at("scale_dtype")));
  quantizer_.affine.compat_reference = compat;
  activations_.bits = std::get<int>(params.at("bits_a"));
  activations_.quantizer = quantizer_.kind;
  activations_.compat_reference = compat;
  scope_ = parse_activation_scope(std::get<std::string>(params.at("activation_scope")));

  const std::string level = std::get<std::string>(params.at("level"));
  if (level != "per_token") quantizer_.granularity = Granularity::PerTensor;
  activations_.per_tensor = level == "O2" || level == "O3";
  static_ranges_ = level == "O3";
  if (static_ranges_ && quantizer_.kind != QuantizerKind::Absmax) {
    throw Error(ErrorCode::InvalidArgument,
                "smoothquant: level=O3 takes its ranges from the calibrated maxima, so it needs quantizer=absmax; "
                "found affine.");
  }
  if (!activations_.off() && std::get<bool>(params.at("quantize_attention"))) {
    attention_.bits = activations_.bits;
    attention_.symmetric = quantizer_.kind == QuantizerKind::Absmax;
  }
  check_width("smoothquant", "bits_w", quantizer_.affine.bits);
  check_width("smoothquant", "bits_a", activations_.bits);
}

DecoderWeights SmoothQuant::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  if (!context.calibration) {
    throw Error(
        ErrorCode::InvalidArgument,
        "smoothquant needs activation maxima. Capture a text with the tap 'activations', or give a calibration text.");
  }
  std::vector<double> absmax;
  DecoderWeights smoothed = smooth_decoder(model.spec(), context.weights ? *context.weights : model.weights(),
                                           *context.calibration, smoothing_, &absmax, job.part(0.0, 0.3));
  const auto input = [&](std::int64_t layer, LinearKind kind) {
    if (!in_scope(scope_, kind)) return ActivationQuantization{};
    ActivationQuantization quantization = activations_;
    if (static_ranges_) {
      const std::size_t index = static_cast<std::size_t>(layer) * kLinearKinds.size() + static_cast<std::size_t>(kind);
      quantization.static_absmax = std::max(absmax[index], 1e-5);
    }
    return quantization;
  };
  DecoderWeights weights =
      quantize_decoder(std::move(smoothed), quantizer_, input, context.execution, job.part(0.3, 1.0));
  weights.attention = attention_;
  return weights;
}

QuantizedTensor SmoothQuant::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  if (quantizer_.off()) return unquantized(weight);
  return as_quantized_tensor(quantize_weight_codes(weight, quantizer_, name), weight, quantizer_);
}

double SmoothQuant::effective_bits(std::int64_t out_features, std::int64_t in_features) const {
  return quantizer_.effective_bits(out_features, in_features);
}

WeightMethodEntry smoothquant_method() {
  return {
      {.id = "smoothquant",
       .title = "SmoothQuant",
       .family = MethodFamily::WeightActivation,
       .paper = "arXiv:2211.10438",
       .citation = "Xiao et al., SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language "
                   "Models, ICML 2023",
       .summary =
           "Moves activation outliers into the weights by an exact rescaling, then quantizes weights and activations.",
       .params = {{.key = "alpha",
                   .label = "Migration strength",
                   .help = "0 keeps all difficulty in the activations, 1 moves all of it into the weights.",
                   .fallback = 0.5,
                   .domain = RealRange{0.0, 1.0}},
                  {.key = "bits_w",
                   .label = "Weight bits",
                   .help = "Width of a weight's code, 2 to 8; fewer is smaller and worse; 16 leaves the weights alone.",
                   .fallback = 8,
                   .domain = IntRange{2, 16},
                   .unit = "bit"},
                  {.key = "bits_a",
                   .label = "Activation bits",
                   .help = "Width of the inputs of the linears; fewer is worse; 16 is off.",
                   .fallback = 8,
                   .domain = IntRange{2, 16},
                   .unit = "bit"},
                  {.key = "quantizer",
                   .label = "Quantizer",
                   .help = "affine: ranges with an integer zero point; absmax: symmetric, the paper's.",
                   .fallback = std::string("affine"),
                   .domain = Choices{{"affine", "absmax"}}},
                  {.key = "level",
                   .label = "Granularity",
                   .help = "per_token: a scale a row and a token; O1: one a weight; O2: also one an activation; O3: "
                           "that one fixed by the calibration.",
                   .fallback = std::string("per_token"),
                   .domain = Choices{{"per_token", "O1", "O2", "O3"}},
                   .aliases = {"granularity"}},
                  {.key = "extended",
                   .label = "Extended folding",
                   .help = "Also smooths down_proj through up_proj and o_proj through v_proj; exact, not in the paper.",
                   .fallback = false},
                  {.key = "activation_scope",
                   .label = "Activation scope",
                   .help = "all: the input of every linear; norm_fed: of q, k, v, gate and up only.",
                   .fallback = std::string("all"),
                   .domain = Choices{{"all", "norm_fed"}},
                   .advanced = true},
                  {.key = "quantize_attention",
                   .label = "Quantize attention",
                   .help = "Also quantizes both attention products to the activation bits.",
                   .fallback = false,
                   .advanced = true},
                  {.key = "scale_dtype",
                   .label = "Scale type",
                   .help = "Type in which scales are kept; f32 is exact and twice as large.",
                   .fallback = std::string("f16"),
                   .domain = Choices{{"f16", "bf16", "f32"}},
                   .advanced = true},
                  {.key = "compat_reference",
                   .label = "Published quirks",
                   .help = "Channels without any activation get the published scale of 1e-5 instead of being skipped.",
                   .fallback = false,
                   .advanced = true}},
       .presets = {{.label = "SmoothQuant W8A8", .params = {}, .source = "arXiv:2211.10438, alpha 0.5"},
                   {.label = "SmoothQuant W8A8, Llama",
                    .params = {{"alpha", 0.85}},
                    .source = "mit-han-lab/smoothquant, Llama-2"},
                   {.label = "SmoothQuant-O3",
                    .params = {{"quantizer", std::string("absmax")}, {"level", std::string("O3")}},
                    .source = "arXiv:2211.10438, table 2"}},
       .needs_calibration = true,
       .effective_bits_formula =
           "bits_w + (16 + bits_w) / in_features; absmax: bits_w + 16 / in_features (scales of the rows)"},
      [](const ParamSet& params) -> std::unique_ptr<WeightMethod> { return std::make_unique<SmoothQuant>(params); }};
}

}  // namespace qs
