#include "backend/methods/smoothquant.h"

#include <ATen/ATen.h>

#include <cstdio>
#include <limits>

#include "backend/methods/declared_methods.h"
#include "backend/methods/rtn_weight.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr int kDefaultWeightBits = 8;

}  // namespace

SmoothQuant::SmoothQuant(const ParamSet& params, Place place) {
  const bool compat = std::get<bool>(params.at("compat_reference"));
  smoothing_.alpha = std::get<double>(params.at("alpha"));
  smoothing_.extended = std::get<bool>(params.at("extended"));
  smoothing_.compat_reference = compat;
  searches_alpha_ = std::get<std::string>(params.at("alpha_rule")) == "search";

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
  if (!activations_.off() && std::get<bool>(params.at("quantize_attention"))) {
    attention_.bits = activations_.bits;
    attention_.absmax = quantizer_.kind == QuantizerKind::Absmax;
    attention_.per_tensor = activations_.per_tensor;
    attention_.values_per_token = std::get<std::string>(params.at("v_axis")) != "channel";
  }
  check_width("smoothquant", "bits_w", quantizer_.affine.bits);
  check_width("smoothquant", "bits_a", activations_.bits);
  search_bits_ = quantizer_.affine.bits;
  if (place == Place::InFront) {
    if (!searches_alpha_ && search_bits_ != kDefaultWeightBits && !quantizer_.off()) {
      throw Error(ErrorCode::InvalidArgument,
                  "smoothquant: in front of a plus sign it only smooths and quantizes inputs, the method behind it "
                  "quantizes the weights, so bits_w=" +
                      std::to_string(search_bits_) + " has no effect. Leave it out.");
    }
    quantizer_.affine.bits = 16;
  }
  check_levels();
}

void SmoothQuant::check_levels() const {
  if (static_ranges_ && quantizer_.kind != QuantizerKind::Absmax) {
    throw Error(ErrorCode::InvalidArgument,
                "smoothquant: level=O3 takes its ranges from the calibrated maxima, so it needs quantizer=absmax; "
                "found affine.");
  }
  if (attention_.per_tensor && !attention_.values_per_token) {
    throw Error(ErrorCode::InvalidArgument,
                "smoothquant: v_axis=channel gives every channel of the values a range of its own, and level=O2 or O3 "
                "one to the whole tensor. Leave one of them out.");
  }
  if (static_ranges_ && !attention_.off() && smoothing_.extended) {
    throw Error(ErrorCode::InvalidArgument,
                "smoothquant: extended=true rescales the values, whose calibrated range level=O3 with "
                "quantize_attention=true would need. Leave one of the three out.");
  }
  if (searches_alpha_ && search_bits_ >= 16 && activations_.off()) {
    throw Error(ErrorCode::InvalidArgument,
                "smoothquant: alpha_rule=search compares what quantization does to outputs, and bits_w=16 with "
                "bits_a=16 quantizes nothing. Set one of them, or give alpha.");
  }
}

PairQuantizers SmoothQuant::pair_quantizers() const {
  PairQuantizers quantizers{quantizer_, activations_, static_ranges_, smoothing_.compat_reference};
  quantizers.weights.affine.bits = search_bits_;
  return quantizers;
}

double SmoothQuant::search_alpha(const PairView& view, const WeightContext& context, const JobContext& job) const {
  constexpr int kSteps = 20;
  const PairQuantizers quantizers = pair_quantizers();
  const PairError error(view, calibrated_rows(*context.calibration, *view.pair, view.layer));
  double best = 0.0, least = std::numeric_limits<double>::infinity();
  for (int step = 0; step <= kSteps; ++step) {
    job.checkpoint(step, kSteps, "Searching alpha");
    const double alpha = static_cast<double>(step) / kSteps, mse = error.mse(alpha, quantizers);
    if (mse < least) best = alpha, least = mse;
  }
  if (context.on_linear) {
    LayerProgress progress;
    progress.layer = view.layer;
    progress.linear = pair_name(*view.pair, view.layer);
    progress.loss = progress.rtn_loss = std::numeric_limits<double>::quiet_NaN();
    progress.tokens = calibrated_rows(*context.calibration, *view.pair, view.layer).size(0);
    progress.effective_bits =
        quantizers.weights.effective_bits(view.weights.front().size(0), view.weights.front().size(1));
    char note[96];
    std::snprintf(note, sizeof note, "alpha %.2f, mean squared error of the outputs %.4g.", best, least);
    progress.notes.emplace_back(note);
    context.on_linear(progress);
  }
  return best;
}

AttentionQuantization SmoothQuant::attention_for(const Model& model, const Calibration& calibration) const {
  AttentionQuantization attention = attention_;
  if (attention.off() || !static_ranges_) return attention;
  const auto largest = [&](std::int64_t layer, const char* operand) {
    const std::string name = attention_operand_name(layer, operand);
    const auto found = calibration.activation_absmax.find(name);
    if (found == calibration.activation_absmax.end()) {
      throw Error(
          ErrorCode::InvalidArgument,
          "smoothquant: level=O3 with quantize_attention=true fixes the ranges of queries, keys and values, and "
          "the calibration '" +
              calibration.source + "' has none for '" + name + "'. Calibrate on a text, not on a capture.");
    }
    return std::max(found->second.max().item<double>(), 1e-5);
  };
  for (std::int64_t layer = 0; layer < model.spec().layers; ++layer)
    attention.maxima.push_back({largest(layer, "query"), largest(layer, "key"), largest(layer, "value")});
  return attention;
}

DecoderWeights SmoothQuant::smoothed(const Model& model, const WeightContext& context, std::vector<double>* absmax,
                                     const JobContext& job) const {
  if (!context.calibration) {
    throw Error(
        ErrorCode::InvalidArgument,
        "smoothquant needs activation maxima. Capture a text with the tap 'activations', or give a calibration text.");
  }
  SmoothingOptions options = smoothing_;
  options.layers = context.layers;
  if (searches_alpha_)
    options.choose_alpha = [&](const PairView& view) { return search_alpha(view, context, job.quiet()); };
  return smooth_decoder(model.spec(), context.weights ? *context.weights : model.weights(), *context.calibration,
                        options, absmax, job);
}

DecoderWeights SmoothQuant::prepare(const Model& model, const WeightContext& context, const JobContext& job) const {
  return smoothed(model, context, nullptr, job);
}

DecoderWeights SmoothQuant::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  const double share = searches_alpha_ ? 0.8 : 0.3;
  std::vector<double> absmax;
  DecoderWeights weights = smoothed(model, context, &absmax, job.part(0.0, share));
  const AttentionQuantization attention = attention_for(model, *context.calibration);
  const auto input = [&](std::int64_t layer, LinearKind kind) {
    if (!in_scope(scope_, kind)) return ActivationQuantization{};
    ActivationQuantization quantization = activations_;
    if (static_ranges_) {
      const std::size_t index = static_cast<std::size_t>(layer) * kLinearKinds.size() + static_cast<std::size_t>(kind);
      quantization.static_absmax = std::max(absmax[index], 1e-5);
    }
    return quantization;
  };
  weights = quantize_decoder(std::move(weights), quantizer_, input, context, job.part(share, 1.0));
  if (!attention.off()) weights.attention = attention;
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
                  {.key = "alpha_rule",
                   .label = "Choice of alpha",
                   .help = "fixed: alpha everywhere; search: behind each norm the one of 0, 0.05 ... 1 with the least "
                           "error of the outputs on calibration inputs (alpha then holds for extended folding only).",
                   .fallback = std::string("fixed"),
                   .domain = Choices{{"fixed", "search"}}},
                  {.key = "bits_w",
                   .label = "Weight bits",
                   .help = "Width of a weight's code, 2 to 8; fewer is smaller and worse; 16 leaves the weights alone. "
                           "In front of a plus sign only the search of alpha reckons with it.",
                   .fallback = kDefaultWeightBits,
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
                  {.key = "v_axis",
                   .label = "Value axis",
                   .help = "Of the values in attention. token: one range a head and token; channel: one a head and "
                           "channel over all tokens (uses future tokens; while decoding it is token).",
                   .fallback = std::string("token"),
                   .domain = Choices{{"token", "channel"}},
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
       .presets = {{.label = "SmoothQuant W8A8",
                    .params = {{"quantizer", std::string("absmax")}},
                    .source = "arXiv:2211.10438, alpha 0.5 as for OPT and BLOOM"},
                   {.label = "SmoothQuant W8A8, Llama",
                    .params = {{"alpha", 0.85}, {"quantizer", std::string("absmax")}},
                    .source = "mit-han-lab/smoothquant, Llama-2 7B and 13B, Llama-3"},
                   {.label = "SmoothQuant W8A8, Mistral",
                    .params = {{"alpha", 0.8}, {"quantizer", std::string("absmax")}},
                    .source = "mit-han-lab/smoothquant, Mistral and Mixtral"},
                   {.label = "SmoothQuant W8A8, Falcon",
                    .params = {{"alpha", 0.6}, {"quantizer", std::string("absmax")}},
                    .source = "mit-han-lab/smoothquant, Falcon-7B"},
                   {.label = "SmoothQuant W8A8, affine",
                    .params = {{"alpha", 0.55}, {"quantize_attention", true}, {"v_axis", std::string("channel")}},
                    .source = "aiha-lab/qllm-infer, LLaMA-3.1-8B-Instruct"},
                   {.label = "SmoothQuant-O1",
                    .params = {{"quantizer", std::string("absmax")}, {"level", std::string("O1")}},
                    .source = "arXiv:2211.10438, table 2"},
                   {.label = "SmoothQuant-O2",
                    .params = {{"quantizer", std::string("absmax")}, {"level", std::string("O2")}},
                    .source = "arXiv:2211.10438, table 2"},
                   {.label = "SmoothQuant-O3",
                    .params = {{"quantizer", std::string("absmax")}, {"level", std::string("O3")}},
                    .source = "arXiv:2211.10438, table 2"}},
       .needs_calibration = true,
       .effective_bits_formula =
           "bits_w + (16 + bits_w) / in_features; absmax: bits_w + 16 / in_features (scales of the rows)"},
      [](const ParamSet& params) -> std::unique_ptr<WeightMethod> { return std::make_unique<SmoothQuant>(params); },
      [](const ParamSet& params) {
        const bool rows = std::get<std::string>(params.at("alpha_rule")) == "search";
        return CalibrationNeeds{.activation_maxima = true, .input_rows = rows};
      },
      [](const ParamSet& params) -> std::unique_ptr<WeightMethod> {
        return std::make_unique<SmoothQuant>(params, SmoothQuant::Place::InFront);
      }};
}

}  // namespace qs
