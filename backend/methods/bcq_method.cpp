#include "backend/methods/bcq_method.h"

#include <ATen/ATen.h>

#include <chrono>
#include <limits>

#include "backend/methods/declared_methods.h"
#include "backend/methods/lut_linear.h"
#include "backend/methods/weight_codes.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {

BcqMethod::BcqMethod(const ParamSet& params) {
  options_.bits = std::get<int>(params.at("bits"));
  options_.group_size = std::get<int>(params.at("group_size"));
  options_.rounds = std::get<int>(params.at("rounds"));
  options_.assign = parse_bcq_assign(std::get<std::string>(params.at("assign")));
  options_.scale_type = parse_scale_type(std::get<std::string>(params.at("scale_dtype")));
  from_rtn_ = std::get<std::string>(params.at("from")) == "rtn";
  const std::string tables = std::get<std::string>(params.at("table_arithmetic"));
  arithmetic_ = tables == "int8"    ? kernels::LutArithmetic::Int8
                : tables == "int16" ? kernels::LutArithmetic::Int16
                                    : kernels::LutArithmetic::F32;
  const std::int64_t group = options_.group_size;
  if (group != -1 && (group < 8 || group % 8 != 0)) {
    throw Error(ErrorCode::InvalidArgument,
                "'group_size' of bcq must be -1 (the whole row) or a multiple of 8, found " + std::to_string(group) +
                    ". The nearest is " + std::to_string(group < 8 ? 8 : (group + 4) / 8 * 8) + ".");
  }
  if (from_rtn_ && options_.bits == 1) {
    throw Error(ErrorCode::InvalidArgument, "bcq: from=rtn needs 2 to 8 bits; one plane can only be searched.");
  }
}

BcqWeight BcqMethod::quantize(const at::Tensor& weight, const std::string& name, const JobContext& job) const {
  if (!from_rtn_) return bcq(weight, options_, name, job);
  if (weight.dim() == 2) check_bcq_group(weight.size(1), options_.group_size, name);
  WeightQuantizer grid;
  grid.affine.bits = options_.bits;
  grid.affine.scale_type = options_.scale_type;
  grid.granularity = options_.group_size > 0 ? Granularity::Group : Granularity::PerChannel;
  grid.group_size = options_.group_size;
  return bcq_from_codes(quantize_weight_codes(weight, grid, name), options_.bits, options_.scale_type, name);
}

std::shared_ptr<const LinearOp> BcqMethod::make_linear(const BcqWeight& weight, const at::Tensor& bias,
                                                       WeightExecution execution, at::ScalarType compute_type) const {
  if (execution == WeightExecution::Packed)
    return std::make_shared<LutLinear>(weight, options_.scale_type, bias, arithmetic_);
  return std::make_shared<DenseLinear>(weight.values.to(compute_type), bias);
}

std::vector<std::string> BcqMethod::notes(std::int64_t in_features) const {
  if (from_rtn_ || (options_.group_size > 0 && options_.group_size < in_features)) return {};
  return {
      "One alpha vector a row is a least-squares fit that clips the largest weights: LLaMA-3.1-8B at 4 bits has "
      "perplexity 112 this way, 9.5 by rounding to nearest and 8.25 with group_size=128."};
}

DecoderWeights BcqMethod::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  using Clock = std::chrono::steady_clock;
  DecoderWeights weights = context.weights ? *context.weights : model.weights();
  const std::vector<LinearSlot> slots = linear_slots(weights);
  double elements = 0.0, done = 0.0;
  for (const LinearSlot& slot : slots) {
    if (!context.quantizes(slot.layer)) continue;
    require_floating_point(**slot.op, slot.name);
    check_bcq_group((*slot.op)->in_features(), options_.group_size, slot.name);
    elements += static_cast<double>((*slot.op)->in_features()) * static_cast<double>((*slot.op)->out_features());
  }
  bool warned = false;
  for (const LinearSlot& slot : slots) {
    if (!context.quantizes(slot.layer)) continue;
    const auto begin = Clock::now();
    const LinearOp& linear = **slot.op;
    const double size = static_cast<double>(linear.in_features()) * static_cast<double>(linear.out_features());
    const BcqWeight planes = quantize(linear.weight(), slot.name, job.part(done / elements, (done + size) / elements));
    done += size;
    LayerProgress progress;
    progress.layer = slot.layer;
    progress.layers = static_cast<std::int64_t>(weights.blocks.size());
    progress.linear = slot.name;
    progress.loss = progress.rtn_loss = std::numeric_limits<double>::quiet_NaN();
    progress.effective_bits = effective_bits(linear.out_features(), linear.in_features());
    if (!warned) progress.notes = notes(linear.in_features());
    warned = warned || !progress.notes.empty();
    *slot.op = make_linear(planes, linear.bias(), context.execution, weights.compute_type);
    progress.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    if (context.on_linear) context.on_linear(progress);
  }
  job.checkpoint(1, 1, "Searching binary codes");
  return weights;
}

QuantizedTensor BcqMethod::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  const BcqWeight planes = quantize(weight, name, {});
  QuantizedTensor result;
  result.values = planes.values.to(weight.scalar_type());
  result.codes = planes.codes;
  result.scale = planes.alpha;
  result.group_min = planes.offset;
  result.levels = std::int64_t{1} << options_.bits;
  result.notes = notes(weight.size(1));
  return result;
}

double BcqMethod::effective_bits(std::int64_t /*out_features*/, std::int64_t in_features) const {
  check_bcq_group(in_features, options_.group_size, "weight");
  return bcq_effective_bits(options_.bits, options_.group_size, in_features, options_.scale_type, from_rtn_);
}

WeightMethodEntry bcq_method() {
  return {
      {.id = "bcq",
       .title = "BCQ",
       .family = MethodFamily::Weight,
       .paper = "arXiv:2206.09557",
       .citation = "Park et al., LUT-GEMM: Quantized Matrix Multiplication based on LUTs for Efficient Inference in "
                   "Large-Scale Generative Language Models, ICLR 2024; Xu et al., Alternating Multi-bit Quantization "
                   "for Recurrent Neural Networks, ICLR 2018",
       .summary =
           "Writes a weight as a sum of scaled sign planes, searched in turn with their scales; products look up "
           "sums of inputs instead of multiplying.",
       .params =
           {{.key = "bits",
             .label = "Weight bits",
             .help = "Sign planes a weight; fewer is smaller and worse.",
             .fallback = 4,
             .domain = IntRange{1, 8},
             .unit = "bit",
             .aliases = {"bits_w"}},
            {.key = "group_size",
             .label = "Group size",
             .help =
                 "Inputs of a row sharing the scales of their planes, a multiple of 8; smaller is better and larger "
                 "on disk; -1, the whole row, clips the largest weights.",
             .fallback = 128,
             .domain = IntRange{-1, 65536},
             .aliases = {"g", "group_size_w"}},
            {.key = "rounds",
             .label = "Rounds",
             .help = "0: greedy; 1: scales fitted once more; more: scales and signs in turn, slower and better up to "
                     "some 15.",
             .fallback = 30,
             .domain = IntRange{0, 200}},
            {.key = "assign",
             .label = "Signs",
             .help = "nearest: the nearest of all sums; greedy: plane by plane, worse.",
             .fallback = std::string("nearest"),
             .domain = Choices{{"nearest", "greedy"}}},
            {.key = "from",
             .label = "From",
             .help =
                 "search: planes fitted to the weights; rtn: the uniform grid of round to nearest, exactly, with an "
                 "offset a group.",
             .fallback = std::string("search"),
             .domain = Choices{{"search", "rtn"}}},
            {.key = "scale_dtype",
             .label = "Scale type",
             .help = "Type in which scales are kept; f32 is exact and twice as large.",
             .fallback = std::string("f16"),
             .domain = Choices{{"f16", "bf16", "f32"}},
             .advanced = true},
            {.key = "table_arithmetic",
             .label = "Table arithmetic",
             .help =
                 "What packed products look up: f32 sums, or sums rounded to 16 bits (faster, 3e-5 of error) or to 8 "
                 "bits (fastest, 1 %).",
             .fallback = std::string("int16"),
             .domain = Choices{{"f32", "int16", "int8"}},
             .advanced = true}},
       .presets = {{.label = "BCQ-4, groups of 128",
                    .params = {{"bits", 4}, {"group_size", 128}, {"rounds", 30}},
                    .source = "aiha-lab/qllm-infer, LLaMA-3.1-8B"},
                   {.label = "BCQ-3, groups of 128",
                    .params = {{"bits", 3}, {"group_size", 128}, {"rounds", 30}},
                    .source = "aiha-lab/qllm-infer, LLaMA-3.1-8B"},
                   {.label = "BCQ-4 per channel",
                    .params = {{"bits", 4}, {"group_size", -1}, {"rounds", 30}},
                    .source = "aiha-lab/qllm-infer, LLaMA-3.1-8B"},
                   {.label = "RTN-4 on LUT-GEMM, groups of 128",
                    .params = {{"bits", 4}, {"group_size", 128}, {"from", std::string("rtn")}},
                    .source = "arXiv:2206.09557, appendix: uniform codes as planes with an offset"}},
       .may_follow = {"smoothquant"},
       .effective_bits_formula = "bits * (1 + 16 / group_size); from=rtn: + 16 / group_size (f16 offset)"},
      [](const ParamSet& params) -> std::unique_ptr<WeightMethod> { return std::make_unique<BcqMethod>(params); }};
}

}  // namespace qs
