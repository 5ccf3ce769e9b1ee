#include "backend/methods/gptq_method.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "backend/methods/code_run.h"
#include "backend/methods/declared_methods.h"
#include "backend/methods/layerwise.h"
#include "backend/methods/layerwise_params.h"
#include "backend/methods/weight_codes.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

at::ScalarType stored_type(ScaleType type) {
  return type == ScaleType::F16 ? at::kHalf : type == ScaleType::BF16 ? at::kBFloat16 : at::kFloat;
}

WeightQuantizer quantizer_of(const GptqOptions& options) {
  WeightQuantizer quantizer;
  quantizer.affine = options.affine;
  quantizer.group_size = options.group_size;
  quantizer.granularity = options.group_size > 0 ? Granularity::Group : Granularity::PerChannel;
  return quantizer;
}

/// Groups follow the processing order: the packed layer keeps its codes in that order.
bool keeps_order(const GptqOptions& options, std::int64_t in_features) {
  return options.act_order && !options.static_groups && group_count(in_features, options.group_size) > 1;
}

}  // namespace

LinearArtifact GptqQuantizer::quantize(const LinearTask& task, const JobContext& job) const {
  const at::Tensor hessian = task.inputs ? task.inputs->matrix(task.name) : at::Tensor();
  GptqResult result = gptq(task.weight, hessian, options_, task.name, job);
  const std::int64_t out = task.weight.size(0), in = task.weight.size(1);
  LinearArtifact artifact;
  LayerProgress& progress = artifact.progress;
  progress.linear = task.name;
  progress.loss = result.undamped_loss;
  progress.damping = result.damping;
  progress.notes = std::move(result.notes);
  progress.rtn_loss = std::numeric_limits<double>::quiet_NaN();
  if (hessian.defined()) {
    progress.tokens = task.inputs->tokens();
    progress.rtn_loss = rounding_loss(task.weight, hessian, options_.affine, options_.group_size);
    note_few_tokens(progress, in);
  }
  GptqOptions used = options_;
  if (result.rounded_to_nearest) used.act_order = false;
  progress.effective_bits = quantizer_of(options_).effective_bits(out, in);
  artifact.tensors = {{"codes", pack_codes(result.codes, options_.affine.bits)},
                      {"scale", result.scale.to(stored_type(options_.affine.scale_type))},
                      {"zero_point", result.zero_point.to(at::kByte)},
                      {"g_idx", result.group_index},
                      {"shape", at::tensor({out, in, std::int64_t{options_.affine.bits}, options_.group_size,
                                            std::int64_t{options_.affine.symmetric}})}};
  if (keeps_order(used, in)) {
    artifact.tensors["order"] = result.order;
    progress.effective_bits += 32.0 / static_cast<double>(out);
  }
  return artifact;
}

std::shared_ptr<const LinearOp> GptqQuantizer::make_linear(const LinearArtifact& artifact, const at::Tensor& bias,
                                                           WeightExecution execution,
                                                           at::ScalarType compute_type) const {
  // Everything comes from the artifact: a block may have been redone with other settings.
  const at::Tensor shape = artifact_tensor(artifact, "shape", at::kLong, 1);
  if (shape.numel() != 5) throw_broken_artifact(artifact, "shape");
  const auto* const size = shape.data_ptr<std::int64_t>();
  GptqOptions options;
  options.affine.bits = static_cast<int>(size[2]);
  options.group_size = size[3];
  options.affine.symmetric = size[4] != 0;
  if (options.affine.bits < 2 || options.affine.bits > 8 || size[0] < 1 || size[1] < 1) {
    throw_broken_artifact(artifact, "shape");
  }
  const at::Tensor& scale = artifact_tensor(artifact, "scale", {}, 2);
  options.affine.scale_type = scale.scalar_type() == at::kHalf       ? ScaleType::F16
                              : scale.scalar_type() == at::kBFloat16 ? ScaleType::BF16
                                                                     : ScaleType::F32;
  WeightCodes codes;
  codes.codes = unpack_codes(artifact_tensor(artifact, "codes", at::kByte, 1), {size[0], size[1]}, options.affine.bits);
  codes.scale = scale.to(at::kFloat);
  codes.zero_point = artifact_tensor(artifact, "zero_point", at::kByte, 2).to(at::kFloat);
  const at::Tensor group = artifact_tensor(artifact, "g_idx", at::kInt, 1).to(at::kLong);
  codes.values =
      codes.codes.to(at::kFloat).sub_(codes.zero_point.index_select(1, group)).mul_(codes.scale.index_select(1, group));
  if (artifact.tensors.count("order")) {
    codes.order = artifact_tensor(artifact, "order", at::kLong, 1);
    codes.codes = codes.codes.index_select(1, codes.order);
  }
  return make_quantized_linear(codes, quantizer_of(options), bias, {}, execution, compute_type);
}

GptqMethod::GptqMethod(const ParamSet& params) : setup_(setup_line("gptq", params)) {
  AffineQuantizer& affine = options_.affine;
  affine.bits = std::get<int>(params.at("bits"));
  affine.symmetric = std::get<bool>(params.at("sym"));
  affine.mse_range = std::get<std::string>(params.at("range")) == "mse";
  affine.scale_type = parse_scale_type(std::get<std::string>(params.at("scale_dtype")));
  affine.store_then_quantize = std::get<bool>(params.at("store_then_quantize"));
  affine.compat_reference = std::get<bool>(params.at("compat_reference"));
  options_.group_size = std::get<int>(params.at("group_size"));
  options_.static_groups = std::get<bool>(params.at("static_groups"));
  options_.fresh_statistics = std::get<std::string>(params.at("group_statistics")) == "fresh";
  options_.percdamp = std::get<double>(params.at("percdamp"));
  options_.block_size = std::get<int>(params.at("block_size"));
  true_sequential_ = std::get<bool>(params.at("true_sequential"));
  const std::string order = std::get<std::string>(params.at("act_order"));
  if (order != "auto") act_order_ = order == "true";
  if (options_.group_size == 0 || options_.group_size < -1) {
    throw Error(ErrorCode::InvalidArgument, "'group_size' of gptq must be -1 (the whole row) or positive, found " +
                                                std::to_string(options_.group_size) + ".");
  }
  if (options_.static_groups && options_.group_size < 0) {
    throw Error(ErrorCode::InvalidArgument,
                "gptq: static_groups=true fixes the ranges of groups before the sweep, so it needs a group_size; found "
                "-1 (the whole row).");
  }
}

GptqOptions GptqMethod::options_for(const ArchitectureSpec& spec) const {
  GptqOptions options = options_;
  options.act_order = act_order_.value_or(is_llama_like(spec));
  return options;
}

DecoderWeights GptqMethod::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  const GptqOptions options = options_for(model.spec());
  GptqQuantizer quantizer(options);
  WeightContext noted = context;
  if (is_llama_like(model.spec()) && !options.act_order) {
    noted.on_linear = [&context](const LayerProgress& progress) {
      LayerProgress with_warning = progress;
      if (progress.layer == 0) {
        with_warning.notes.emplace_back(
            "act_order is off: Llama-like models lose much quality without it, above all with one range a row.");
      }
      if (context.on_linear) context.on_linear(with_warning);
    };
  }
  return quantize_layerwise(model, quantizer, {setup_, true_sequential_}, noted, job);
}

QuantizedTensor GptqMethod::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  const at::Tensor identity = weight.dim() == 2 ? at::eye(weight.size(1), at::kFloat) : at::Tensor();
  GptqOptions options = options_;
  options.act_order = false;
  options.percdamp = 0.0;
  const GptqResult result = gptq(weight, identity, options, name, {});
  QuantizedTensor quantized;
  quantized.values = result.values.to(weight.scalar_type());
  quantized.codes = result.codes;
  quantized.scale = result.scale;
  quantized.group_min = -(result.scale * result.zero_point);
  quantized.levels = std::int64_t{1} << options_.affine.bits;
  return quantized;
}

double GptqMethod::effective_bits(std::int64_t out_features, std::int64_t in_features) const {
  GptqOptions options = options_;
  options.act_order = act_order_.value_or(true);
  const double order = keeps_order(options, in_features) ? 32.0 / static_cast<double>(out_features) : 0.0;
  return quantizer_of(options_).effective_bits(out_features, in_features) + order;
}

bool is_llama_like(const ArchitectureSpec& spec) { return spec.norm != NormKind::LayerNorm && spec.gated_mlp; }

WeightMethodEntry gptq_method() {
  std::vector<ParamSpec> params = {
      {.key = "bits",
       .label = "Weight bits",
       .help = "Width of a weight's code; fewer is smaller and worse.",
       .fallback = 4,
       .domain = IntRange{2, 8},
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
      {.key = "act_order",
       .label = "Activation order",
       .help = "Quantizes the columns with the largest inputs first; auto: on for Llama-like models, where it matters "
               "most.",
       .fallback = std::string("auto"),
       .domain = Choices{{"auto", "true", "false"}},
       .aliases = {"desc_act"}},
      {.key = "static_groups",
       .label = "Static groups",
       .help = "Finds the ranges of all groups first; with activation order, products need no reordering.",
       .fallback = false},
      {.key = "group_statistics",
       .label = "Group statistics",
       .help = "stale: ranges miss the updates inside the current block, as published; fresh: they see every update.",
       .fallback = std::string("stale"),
       .domain = Choices{{"stale", "fresh"}},
       .advanced = true},
      {.key = "range",
       .label = "Range",
       .help = "minmax keeps the extremes; mse searches the clipping with the least error (80 passes).",
       .fallback = std::string("minmax"),
       .domain = Choices{{"minmax", "mse"}}},
      {.key = "percdamp",
       .label = "Damping",
       .help = "Share of the mean diagonal added to H; more is stabler and further from the inputs. Raised by itself "
               "when H cannot be factorized.",
       .fallback = 0.01,
       .domain = RealRange{0.0, 1.0}},
      {.key = "block_size",
       .label = "Block size",
       .help = "Columns between two updates of the rest of the matrix: speed, and the result with stale statistics.",
       .fallback = 128,
       .domain = IntRange{1, 65536},
       .advanced = true}};
  append_layerwise_params(params);
  append_stored_scale_params(params);
  return {{.id = "gptq",
           .title = "GPTQ",
           .family = MethodFamily::Weight,
           .paper = "arXiv:2210.17323",
           .citation = "Frantar et al., GPTQ: Accurate Post-Training Quantization for Generative Pre-trained "
                       "Transformers, ICLR 2023",
           .summary = "Rounds column after column and lets the columns to come make up for the error, weighted by the "
                      "inputs of a calibration text.",
           .params = std::move(params),
           .presets = {{.label = "GPTQ-4, groups of 128",
                        .params = {{"bits", 4}, {"group_size", 128}},
                        .source = "IST-DASLab/gptq, common setting"},
                       {.label = "GPTQ-4 per channel", .params = {{"bits", 4}}, .source = "arXiv:2210.17323, table 3"},
                       {.label = "GPTQ-3 per channel", .params = {{"bits", 3}}, .source = "arXiv:2210.17323, table 3"},
                       {.label = "GPTQ-4, static groups of 128",
                        .params = {{"bits", 4}, {"group_size", 128}, {"static_groups", true}},
                        .source = "IST-DASLab/gptq, --act-order --static-groups"}},
           .may_follow = {"smoothquant"},
           .needs_calibration = true,
           .calibration_need = CalibrationNeed::TokenWindows,
           .effective_bits_formula = "bits + (16 + bits) / group_size; symmetric: bits + 16 / group_size; plus 32 / "
                                     "out_features with activation order and groups that are not static"},
          [](const ParamSet& set) -> std::unique_ptr<WeightMethod> { return std::make_unique<GptqMethod>(set); }};
}

}  // namespace qs
