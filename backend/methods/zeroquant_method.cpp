#include "backend/methods/zeroquant_method.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "backend/methods/declared_methods.h"
#include "backend/methods/layerwise_params.h"
#include "backend/methods/lkd_run.h"
#include "backend/methods/measured_bits.h"
#include "backend/methods/rtn_weight.h"
#include "backend/methods/weight_codes.h"
#include "backend/methods/zeroquant_linear.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

bool in_attention(LinearKind kind) {
  return kind == LinearKind::Q || kind == LinearKind::K || kind == LinearKind::V || kind == LinearKind::O;
}

bool names_attention(const std::string& name) {
  constexpr std::array kParts = {"attn", "attention", "q_proj", "k_proj", "v_proj", "o_proj", "query_key_value"};
  return std::any_of(kParts.begin(), kParts.end(),
                     [&name](const char* part) { return name.find(part) != std::string::npos; });
}

int weight_bits(const ParamSet& params, const char* key) {
  const int bits = std::get<int>(params.at(key));
  if (bits >= 9 && bits <= 15) {
    throw Error(
        ErrorCode::InvalidArgument,
        "'" + std::string(key) + "' of zeroquant must be 1 to 8, or 16 for off; found " + std::to_string(bits) + ".");
  }
  return bits;
}

RunLayout layout_of(const ParamSet& params) {
  const std::string groups = std::get<std::string>(params.at("groups"));
  const int group_size = std::get<int>(params.at("group_size")), num_groups = std::get<int>(params.at("num_groups"));
  if (group_size > 0 && num_groups > 0) {
    throw Error(ErrorCode::InvalidArgument, "zeroquant: group_size=" + std::to_string(group_size) +
                                                " and num_groups=" + std::to_string(num_groups) +
                                                " contradict each other; give one of them.");
  }
  if ((groups == "group_size" && group_size == 0) || (groups == "num_groups" && num_groups == 0)) {
    throw Error(ErrorCode::InvalidArgument,
                "zeroquant: groups=" + groups + " needs " + groups + ", such as " + groups + "=64.");
  }
  if (group_size > 0) return {RunLayout::Kind::GroupSize, group_size};
  if (num_groups > 0) return {RunLayout::Kind::NumGroups, num_groups};
  return {};
}

std::int64_t layer_number(std::string_view text, const std::string& all) {
  std::int64_t number = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || number < 0) {
    throw Error(ErrorCode::InvalidArgument,
                "lkd_layers must be all, last, or layers and ranges between slashes such "
                "as 0/3-5; '" +
                    all + "' cannot be read.");
  }
  return number;
}

}  // namespace

std::set<std::int64_t> parse_lkd_layers(const std::string& text, std::int64_t layers) {
  std::set<std::int64_t> chosen;
  if (text == "last") {
    if (layers > 0) chosen.insert(layers - 1);
    return chosen;
  }
  if (text == "all") {
    for (std::int64_t layer = 0; layer < layers; ++layer) chosen.insert(layer);
    return chosen;
  }
  std::string_view rest = text;
  do {
    const std::size_t slash = rest.find('/');
    const std::string_view part = rest.substr(0, slash);
    rest = slash == std::string_view::npos ? std::string_view{} : rest.substr(slash + 1);
    const std::size_t dash = part.find('-');
    const std::int64_t first = layer_number(part.substr(0, dash), text);
    const std::int64_t last = dash == std::string_view::npos ? first : layer_number(part.substr(dash + 1), text);
    if (last < first || (layers > 0 && last >= layers)) {
      throw Error(ErrorCode::InvalidArgument,
                  "lkd_layers: '" + std::string(part) + "' is no range of layers" +
                      (layers > 0 ? " of this model, which has 0 to " + std::to_string(layers - 1) : "") + ".");
    }
    if (layers == 0) continue;
    for (std::int64_t layer = first; layer <= last; ++layer) chosen.insert(layer);
  } while (!rest.empty());
  return chosen;
}

ZeroQuant::ZeroQuant(const ParamSet& params) : setup_(setup_line("zeroquant", params)) {
  attention_.bits = weight_bits(params, "bits_attn");
  mlp_.bits = weight_bits(params, "bits_mlp");
  for (ZeroQuantWeight* weight : {&attention_, &mlp_}) {
    weight->symmetric = std::get<bool>(params.at("sym"));
    weight->rule = parse_zeroquant_scale(std::get<std::string>(params.at("scale_rule")));
    weight->scale_type = parse_scale_type(std::get<std::string>(params.at("scale_dtype")));
    weight->layout = layout_of(params);
    if (!weight->symmetric && weight->bits < 3) {
      throw Error(ErrorCode::InvalidArgument,
                  "zeroquant: sym=false needs at least 3 bits; 2 bits are ternary and 1 "
                  "bit is binary, both around 0. Found " +
                      std::to_string(weight->bits) + ".");
    }
  }
  tokens_.bits = std::get<int>(params.at("bits_a"));
  check_width("zeroquant", "bits_a", tokens_.bits);
  tokens_.symmetric = std::get<bool>(params.at("sym_a"));
  tokens_.rule = mlp_.rule;
  distils_ = std::get<bool>(params.at("lkd"));
  lkd_layers_ = std::get<std::string>(params.at("lkd_layers"));
  parse_lkd_layers(lkd_layers_, 0);
  lkd_.steps = std::get<int>(params.at("lkd_steps"));
  lkd_.batch = std::get<int>(params.at("lkd_batch"));
  lkd_.learning_rate = std::get<double>(params.at("lkd_lr"));
  lkd_.weight_decay = std::get<double>(params.at("lkd_weight_decay"));
  lkd_.scale_rate_by_loss = std::get<std::string>(params.at("lr_scale")) == "loss";
  lkd_.compat_reference = std::get<bool>(params.at("compat_reference"));
}

const ZeroQuantWeight& ZeroQuant::weight_quantizer(LinearKind kind) const {
  return in_attention(kind) ? attention_ : mlp_;
}

std::set<std::int64_t> ZeroQuant::distilled_layers(std::int64_t layers, const WeightContext& context) const {
  std::set<std::int64_t> chosen;
  if (!distils_) return chosen;
  for (const std::int64_t layer : parse_lkd_layers(lkd_layers_, layers))
    if (context.quantizes(layer)) chosen.insert(layer);
  return chosen;
}

DecoderWeights ZeroQuant::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  DecoderWeights weights = context.weights ? *context.weights : model.weights();
  const auto layers = static_cast<std::int64_t>(weights.blocks.size());
  const std::set<std::int64_t> distilled = distilled_layers(layers, context);
  const std::vector<LinearSlot> slots = linear_slots(weights);
  // Widths and groups are checked before anything takes time.
  for (const LinearSlot& slot : slots) {
    if (!context.quantizes(slot.layer)) continue;
    require_floating_point(**slot.op, slot.name);
    const ZeroQuantWeight& quantizer = weight_quantizer(slot.kind);
    if (!quantizer.off()) quantizer.layout.length((*slot.op)->out_features(), (*slot.op)->in_features(), slot.name);
  }
  const double split = distilled.empty() ? 0.0 : 0.95;
  if (!distilled.empty()) {
    const LkdQuantization quantization{[this](LinearKind kind) { return weight_quantizer(kind); }, tokens_};
    run_lkd(model, weights, distilled, quantization, lkd_, setup_, context, job.part(0.0, split));
  }
  const JobContext rest = job.part(split, 1.0);
  const auto total = static_cast<std::int64_t>(slots.size());
  for (std::int64_t i = 0; i < total; ++i) {
    rest.checkpoint(i, total, "Quantizing weights");
    const LinearSlot& slot = slots[static_cast<std::size_t>(i)];
    if (!context.quantizes(slot.layer) || distilled.count(slot.layer)) continue;
    const LinearOp& linear = **slot.op;
    const ZeroQuantWeight& quantizer = weight_quantizer(slot.kind);
    if (quantizer.off()) {
      if (!tokens_.off()) *slot.op = std::make_shared<TokenQuantizedLinear>(*slot.op, tokens_);
      continue;
    }
    *slot.op = make_zeroquant_linear(quantize_zeroquant(linear.weight(), quantizer, slot.name), quantizer,
                                     linear.bias(), tokens_, context.execution, weights.compute_type);
  }
  rest.checkpoint(total, total, "Quantizing weights");
  weights.measured_bits = mean_bits_kept_as_floats(model, weights, context, [this](const LinearSlot& slot) {
    return weight_quantizer(slot.kind).effective_bits((*slot.op)->out_features(), (*slot.op)->in_features());
  });
  return weights;
}

QuantizedTensor ZeroQuant::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  const ZeroQuantWeight& quantizer = names_attention(name) ? attention_ : mlp_;
  if (quantizer.off()) return unquantized(weight);
  const ZeroQuantCodes codes = quantize_zeroquant(weight, quantizer, name);
  QuantizedTensor result;
  result.values = codes.values.to(weight.scalar_type());
  result.codes = codes.codes;
  result.scale = codes.scale;
  result.group_min = -(codes.scale * codes.zero_point);
  result.levels = quantizer.bits == 2 ? 3 : std::int64_t{1} << quantizer.bits;
  return result;
}

double ZeroQuant::effective_bits(std::int64_t out_features, std::int64_t in_features) const {
  return mlp_.effective_bits(out_features, in_features);
}

namespace {

std::vector<ParamSpec> zeroquant_params() {
  return {
      {.key = "bits_attn",
       .label = "Attention bits",
       .help = "Width of a weight's code in q, k, v and o: 3 to 8; 2 is ternary, 1 binary; 16 leaves them alone.",
       .fallback = 8,
       .domain = IntRange{1, 16},
       .unit = "bit"},
      {.key = "bits_mlp",
       .label = "MLP bits",
       .help = "The same for gate, up and down; fewer is smaller and worse.",
       .fallback = 4,
       .domain = IntRange{1, 16},
       .unit = "bit"},
      {.key = "bits_a",
       .label = "Activation bits",
       .help = "Width of the inputs of the linears, one range a token at every forward; 16 is off.",
       .fallback = 16,
       .domain = IntRange{2, 16},
       .unit = "bit"},
      {.key = "groups",
       .label = "Groups",
       .help = "One scale a row, one for group_size inputs of a row, or num_groups equal runs of the whole weight.",
       .fallback = std::string("per_row"),
       .domain = Choices{{"per_row", "group_size", "num_groups"}}},
      {.key = "group_size",
       .label = "Group size",
       .help = "Inputs of a row sharing one scale; smaller is better and larger on disk; 0 is not used.",
       .fallback = 0,
       .domain = IntRange{0, 65536},
       .aliases = {"g"}},
      {.key = "num_groups",
       .label = "Number of groups",
       .help = "Runs of the row-major weight sharing one scale, as published; they may straddle rows; 0 is not used.",
       .fallback = 0,
       .domain = IntRange{0, std::numeric_limits<int>::max()}},
      {.key = "scale_rule",
       .label = "Scale rule",
       .help = "code divides by 2^(bits-1) and clips the largest value by a step; paper divides by one less.",
       .fallback = std::string("code"),
       .domain = Choices{{"code", "paper"}}},
      {.key = "sym",
       .label = "Symmetric",
       .help = "Weights get one range around 0; asymmetric ones also store a 16-bit offset a group.",
       .fallback = true,
       .advanced = true,
       .aliases = {"sym_w"}},
      {.key = "sym_a",
       .label = "Symmetric activations",
       .help = "Tokens get one range around 0; worse for one-sided ones.",
       .fallback = true,
       .advanced = true},
      {.key = "lkd",
       .label = "Distillation (LKD)",
       .help = "Trains each block to repeat the full-precision block; needs a calibration text and takes long.",
       .fallback = false},
      {.key = "lkd_layers",
       .label = "Distilled layers",
       .help = "all, last, or layers and ranges between slashes, such as 0/3-5.",
       .fallback = std::string("all")},
      {.key = "lkd_steps",
       .label = "Steps",
       .help = "Optimizer steps a block; more is slower and, up to some hundred, better.",
       .fallback = 100,
       .domain = IntRange{1, 1000000}},
      {.key = "lkd_lr",
       .label = "Learning rate",
       .help = "Of AdamW, constant; larger learns faster and may diverge.",
       .fallback = 5e-6,
       .domain = RealRange{0.0, 1.0}},
      {.key = "lkd_batch",
       .label = "Batch",
       .help = "Windows a step.",
       .fallback = 4,
       .domain = IntRange{1, 65536},
       .unit = "window"},
      {.key = "lkd_weight_decay",
       .label = "Weight decay",
       .help = "Decoupled, of matrices; biases and norms have none.",
       .fallback = 0.01,
       .domain = RealRange{0.0, 1.0},
       .advanced = true},
      {.key = "lr_scale",
       .label = "Rate scaling",
       .help = "loss divides the learning rate of a block by its first loss, which differs much between blocks.",
       .fallback = std::string("none"),
       .domain = Choices{{"none", "loss"}},
       .advanced = true},
      {.key = "nsamples",
       .label = "Windows",
       .help = "Windows of the text for LKD; used again when the steps need more.",
       .fallback = 128,
       .domain = IntRange{1, 65536}},
      {.key = "seqlen",
       .label = "Window length",
       .help = "Tokens of a window; cut to the model's context.",
       .fallback = 2048,
       .domain = IntRange{2, 1048576},
       .unit = "token"},
      {.key = "seed",
       .label = "Seed",
       .help = "Of the random starts of the windows.",
       .fallback = 0,
       .domain = IntRange{0, 2147483647},
       .advanced = true},
      {.key = "scale_dtype",
       .label = "Scale type",
       .help = "Type in which scales are kept; f32 is exact and twice as large.",
       .fallback = std::string("f16"),
       .domain = Choices{{"f16", "bf16", "f32"}},
       .advanced = true},
      {.key = "compat_reference",
       .label = "Published quirks",
       .help = "LKD without a causal mask and with decay of the norms, as in the published experiment on Llama.",
       .fallback = false,
       .advanced = true}};
}

}  // namespace

WeightMethodEntry zeroquant_method() {
  return {
      {.id = "zeroquant",
       .title = "ZeroQuant",
       .family = MethodFamily::WeightActivation,
       .paper = "arXiv:2206.01861",
       .citation = "Yao et al., ZeroQuant: Efficient and Affordable Post-Training Quantization for Large-Scale "
                   "Transformers, NeurIPS 2022",
       .summary = "Group-wise weights of 8 bits in attention and 4 in the MLP, token-wise activations; blocks may be "
                  "distilled one by one.",
       .params = zeroquant_params(),
       .presets = {{.label = "ZeroQuant W8A8, 64 groups",
                    .params = {{"bits_mlp", 8}, {"bits_a", 8}, {"num_groups", 64}},
                    .source = "arXiv:2206.01861, GPT-2"},
                   {.label = "ZeroQuant W4/8A8, 64 groups",
                    .params = {{"bits_a", 8}, {"num_groups", 64}},
                    .source = "arXiv:2206.01861, GPT-2"},
                   {.label = "ZeroQuant W4/8A8, 48 groups",
                    .params = {{"bits_a", 8}, {"num_groups", 48}},
                    .source = "arXiv:2206.01861, BERT"},
                   {.label = "ZeroQuant W4/8A16, 4096 groups",
                    .params = {{"num_groups", 4096}},
                    .source = "aiha-lab/qllm-infer, Llama-3.1"},
                   {.label = "ZeroQuant W4/8A8, LKD of the last block",
                    .params = {{"bits_a", 8},
                               {"num_groups", 4096},
                               {"lkd", true},
                               {"lkd_layers", std::string("last")},
                               {"lkd_weight_decay", 1e-5}},
                    .source = "aiha-lab/qllm-infer, Llama-3.1"},
                   {.label = "ZeroQuant-LKD W4/8A8, per row",
                    .params = {{"bits_a", 8}, {"lkd", true}, {"lkd_batch", 32}, {"seqlen", 128}},
                    .source = "arXiv:2206.01861, section 4"}},
       .may_follow = {"smoothquant"},
       .needs_calibration = false,
       .calibration_need = CalibrationNeed::TokenWindows,
       .effective_bits_formula = "bits_attn or bits_mlp + 16 * num_groups / (out_features * in_features), per row 16 "
                                 "/ in_features; asymmetric: twice the second term"},
      [](const ParamSet& params) -> std::unique_ptr<WeightMethod> { return std::make_unique<ZeroQuant>(params); },
      [](const ParamSet& params) { return CalibrationNeeds{.token_windows = std::get<bool>(params.at("lkd"))}; }};
}

}  // namespace qs
