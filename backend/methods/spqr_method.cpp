#include "backend/methods/spqr_method.h"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdio>

#include "backend/methods/code_run.h"
#include "backend/methods/declared_methods.h"
#include "backend/methods/layerwise.h"
#include "backend/methods/layerwise_params.h"
#include "backend/methods/spqr_linear.h"
#include "backend/methods/weight_codes.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

void put_statistic(LinearArtifact& artifact, const std::string& name, const SecondLevel& level, const at::Tensor& plain,
                   int bits, at::ScalarType plain_type) {
  if (!level.codes.defined()) {
    artifact.tensors[name] = plain.to(plain_type);
    return;
  }
  artifact.tensors[name + "_codes"] = pack_codes(level.codes, bits);
  artifact.tensors[name + "_qq_scale"] = level.scale.to(at::kHalf);
  artifact.tensors[name + "_qq_zero"] = level.zero.to(at::kHalf);
}

void take_statistic(const LinearArtifact& artifact, const std::string& name, std::int64_t groups, std::int64_t out,
                    int bits, SecondLevel& level, at::Tensor& plain) {
  if (artifact.tensors.count(name)) {
    plain = artifact_tensor(artifact, name, {}, 2).to(at::kFloat);
    if (plain.size(0) != groups || plain.size(1) != out) throw_broken_artifact(artifact, name);
    return;
  }
  level.codes = unpack_codes(artifact_tensor(artifact, name + "_codes", at::kByte, 1), {groups, out}, bits);
  level.scale = artifact_tensor(artifact, name + "_qq_scale", at::kHalf, 2).to(at::kFloat);
  level.zero = artifact_tensor(artifact, name + "_qq_zero", at::kHalf, 2).to(at::kFloat);
}

void check_outliers(const LinearArtifact& artifact, const SpqrResult& result, std::int64_t out, std::int64_t in) {
  const std::int64_t count = result.outlier_columns.numel();
  const at::Tensor& rows = result.outlier_rows;
  const bool sound = rows.numel() == out + 1 && result.outlier_values.numel() == count && rows[0].item<int>() == 0 &&
                     rows[out].item<std::int64_t>() == count &&
                     (rows.narrow(0, 1, out) >= rows.narrow(0, 0, out)).all().item<bool>() &&
                     (count == 0 || (result.outlier_columns.min().item<int>() >= 0 &&
                                     result.outlier_columns.max().item<std::int64_t>() < in));
  if (!sound) throw_broken_artifact(artifact, "outlier_columns");
}

}  // namespace

void SpqrQuantizer::tune(const std::vector<LinearTask>& first_block, const JobContext& job) {
  if (target_bits_ <= 0.0) return;
  std::vector<SpqrLayer> layers;
  for (const LinearTask& task : first_block) {
    layers.push_back({task.weight, task.inputs ? task.inputs->matrix(task.name) : at::Tensor(), task.name});
  }
  options_.outlier_threshold = find_outlier_threshold(layers, options_, target_bits_, job).outlier_threshold;
}

void SpqrQuantizer::restore(const LinearArtifact& artifact) {
  if (target_bits_ <= 0.0) return;
  options_.outlier_threshold = artifact_tensor(artifact, "outlier_threshold", at::kDouble, 1)[0].item<double>();
}

LinearArtifact SpqrQuantizer::quantize(const LinearTask& task, const JobContext& job) const {
  const at::Tensor hessian = task.inputs ? task.inputs->matrix(task.name) : at::Tensor();
  SpqrResult result = spqr(task.weight, hessian, options_, task.name, job);
  const std::int64_t out = task.weight.size(0), in = task.weight.size(1);
  LinearArtifact artifact;
  LayerProgress& progress = artifact.progress;
  progress.linear = task.name;
  progress.loss = result.undamped_loss;
  progress.damping = result.damping;
  progress.effective_bits = result.average_bits;
  progress.notes = std::move(result.notes);
  progress.rtn_loss = std::numeric_limits<double>::quiet_NaN();
  if (hessian.defined()) {
    progress.tokens = task.inputs->tokens();
    AffineQuantizer affine;
    affine.bits = options_.bits;
    affine.symmetric = options_.symmetric;
    progress.rtn_loss = rounding_loss(task.weight, hessian, affine, options_.group_size);
    note_few_tokens(progress, in);
  }
  char text[96];
  std::snprintf(text, sizeof text, "%.2f %% of the weights are outliers.", 100.0 * result.outlier_share);
  if (std::isfinite(options_.outlier_threshold)) progress.notes.emplace_back(text);
  artifact.tensors = {{"codes", pack_codes(result.codes, options_.bits)},
                      {"order", result.order},
                      {"outlier_rows", result.outlier_rows},
                      {"outlier_columns", result.outlier_columns},
                      {"outlier_values", result.outlier_values.to(at::kHalf)},
                      {"outlier_threshold", at::full({1}, options_.outlier_threshold, at::kDouble)},
                      {"shape", at::tensor({out, in, std::int64_t{options_.bits}, options_.group_of(in),
                                            std::int64_t{options_.quantizes_scales() ? options_.qq_scale_bits : 0},
                                            std::int64_t{options_.quantizes_zeros() ? options_.qq_zero_bits : 0},
                                            options_.qq_group_size, std::int64_t{options_.symmetric},
                                            std::int64_t{options_.round_zero}})}};
  put_statistic(artifact, "scale", result.scales, result.scale, options_.qq_scale_bits, at::kHalf);
  put_statistic(artifact, "zero", result.zeros, result.zero_point, options_.qq_zero_bits,
                options_.round_zero ? at::kFloat : at::kHalf);
  return artifact;
}

std::shared_ptr<const LinearOp> SpqrQuantizer::make_linear(const LinearArtifact& artifact, const at::Tensor& bias,
                                                           WeightExecution execution,
                                                           at::ScalarType compute_type) const {
  const at::Tensor& shape = artifact_tensor(artifact, "shape", at::kLong, 1);
  if (shape.numel() != 9) throw_broken_artifact(artifact, "shape");
  const auto* const size = shape.data_ptr<std::int64_t>();
  const std::int64_t out = size[0], in = size[1];
  SpqrOptions options;
  options.bits = static_cast<int>(size[2]);
  options.group_size = size[3];
  options.qq_scale_bits = static_cast<int>(size[4]);
  options.qq_zero_bits = static_cast<int>(size[5]);
  options.qq_group_size = size[6];
  options.symmetric = size[7] != 0;
  options.round_zero = size[8] != 0;
  const bool runs = options.qq_scale_bits > 0 || options.qq_zero_bits > 0;
  if (out < 1 || in < 1 || options.bits < 2 || options.bits > 8 || options.group_size < 1 ||
      in % options.group_size != 0 || (runs && (options.qq_group_size < 1 || out % options.qq_group_size != 0))) {
    throw_broken_artifact(artifact, "shape");
  }
  const std::int64_t groups = in / options.group_size;
  SpqrResult result;
  result.codes = unpack_codes(artifact_tensor(artifact, "codes", at::kByte, 1), {out, in}, options.bits);
  result.order = artifact_tensor(artifact, "order", at::kLong, 1);
  take_statistic(artifact, "scale", groups, out, options.qq_scale_bits, result.scales, result.scale);
  take_statistic(artifact, "zero", groups, out, options.qq_zero_bits, result.zeros, result.zero_point);
  rebuild_statistics(result, options.qq_group_size, options.scale_type);
  result.outlier_rows = artifact_tensor(artifact, "outlier_rows", at::kInt, 1).contiguous();
  result.outlier_columns = artifact_tensor(artifact, "outlier_columns", at::kInt, 1).contiguous();
  result.outlier_values = artifact_tensor(artifact, "outlier_values", at::kHalf, 1).to(at::kFloat);
  check_outliers(artifact, result, out, in);
  if (execution == WeightExecution::Packed) return std::make_shared<SpqrLinear>(result, options, bias);
  return std::make_shared<DenseLinear>(spqr_values(result).to(compute_type), bias);
}

SpqrMethod::SpqrMethod(const ParamSet& params) : setup_(setup_line("spqr", params)) {
  options_.bits = std::get<int>(params.at("bits"));
  options_.symmetric = std::get<bool>(params.at("sym"));
  options_.group_size = std::get<int>(params.at("group_size"));
  options_.qq_scale_bits = std::get<int>(params.at("qq_scale_bits"));
  options_.qq_zero_bits = std::get<int>(params.at("qq_zero_bits"));
  options_.qq_zero_sym = std::get<bool>(params.at("qq_zero_sym"));
  options_.qq_group_size = std::get<int>(params.at("qq_group_size"));
  options_.simplified_outliers = std::get<bool>(params.at("simplified_outliers"));
  options_.round_zero = std::get<bool>(params.at("round_zero"));
  options_.order = parse_column_order(std::get<std::string>(params.at("permutation_order")));
  options_.percdamp = std::get<double>(params.at("percdamp"));
  options_.block_size = std::get<int>(params.at("block_size"));
  true_sequential_ = std::get<bool>(params.at("true_sequential"));
  target_bits_ = std::get<double>(params.at("target_bits"));
  const double threshold = std::get<double>(params.at("outlier_threshold"));
  if (threshold > 0.0) options_.outlier_threshold = threshold;
  if (options_.group_size == 0 || options_.group_size < -1) {
    throw Error(ErrorCode::InvalidArgument, "'group_size' of spqr must be -1 (the whole row) or positive, found " +
                                                std::to_string(options_.group_size) + ".");
  }
  if (threshold > 0.0 && target_bits_ > 0.0) {
    throw Error(ErrorCode::InvalidArgument,
                "spqr: outlier_threshold and target_bits both set the share of outliers; give one of them.");
  }
}

DecoderWeights SpqrMethod::apply(const Model& model, const WeightContext& context, const JobContext& job) const {
  SpqrQuantizer quantizer(options_, target_bits_);
  return quantize_layerwise(model, quantizer, {setup_, true_sequential_}, context, job);
}

QuantizedTensor SpqrMethod::quantize_weight(const at::Tensor& weight, const std::string& name) const {
  const at::Tensor identity = weight.dim() == 2 ? at::eye(weight.size(1), at::kFloat) : at::Tensor();
  SpqrOptions options = options_;
  options.percdamp = 0.0;
  const SpqrResult result = spqr(weight, identity, options, name, {});
  const at::Tensor inverse = at::argsort(result.order);
  at::Tensor kept = at::zeros(result.codes.sizes(), at::kBool);
  const auto* const rows = result.outlier_rows.data_ptr<std::int32_t>();
  const auto* const columns = result.outlier_columns.data_ptr<std::int32_t>();
  for (std::int64_t row = 0; row < kept.size(0); ++row) {
    for (std::int32_t k = rows[row]; k < rows[row + 1]; ++k)
      kept.data_ptr<bool>()[row * kept.size(1) + columns[k]] = true;
  }
  QuantizedTensor quantized;
  quantized.values = result.values.to(weight.scalar_type());
  quantized.full_precision = kept.index_select(1, inverse);
  quantized.codes = result.codes.index_select(1, inverse).masked_fill(quantized.full_precision, 255);
  quantized.scale = result.scale.t().contiguous();
  quantized.group_min = -(result.scale * result.zero_point).t().contiguous();
  quantized.levels = std::int64_t{1} << options_.bits;
  return quantized;
}

double SpqrMethod::effective_bits(std::int64_t, std::int64_t in_features) const {
  return target_bits_ > 0.0 ? target_bits_ : options_.average_bits(in_features, 0.0);
}

WeightMethodEntry spqr_method() {
  std::vector<ParamSpec> params = {
      {.key = "bits",
       .label = "Weight bits",
       .help = "Width of a dense weight's code; fewer is smaller and worse.",
       .fallback = 3,
       .domain = IntRange{2, 8},
       .unit = "bit",
       .aliases = {"bits_w"}},
      {.key = "group_size",
       .label = "Group size",
       .help = "Inputs of a row sharing a scale and a zero; smaller is better and larger on disk; -1 is the whole row.",
       .fallback = 16,
       .domain = IntRange{-1, 65536},
       .aliases = {"g", "beta1"}},
      {.key = "outlier_threshold",
       .label = "Outlier threshold",
       .help = "Relative error above which a weight stays in 16 bits: higher means fewer outliers; 0: none at all.",
       .fallback = 0.0,
       .domain = RealRange{0.0, 1000.0}},
      {.key = "target_bits",
       .label = "Target bits",
       .help = "Searches the outlier threshold on the first block for this average width; 0: the threshold is given.",
       .fallback = 0.0,
       .domain = RealRange{0.0, 16.0},
       .unit = "bit"},
      {.key = "qq_scale_bits",
       .label = "Scale bits",
       .help = "Width of a scale's own code; 0 keeps scales in 16 bits.",
       .fallback = 3,
       .domain = IntRange{0, 8},
       .unit = "bit"},
      {.key = "qq_zero_bits",
       .label = "Zero bits",
       .help = "Width of a zero's own code; 0 keeps zeros in 16 bits.",
       .fallback = 3,
       .domain = IntRange{0, 8},
       .unit = "bit"},
      {.key = "qq_group_size",
       .label = "Rows per statistic",
       .help = "Rows whose scales share a second level; smaller is better and larger on disk.",
       .fallback = 16,
       .domain = IntRange{1, 65536},
       .aliases = {"beta2"}},
      {.key = "permutation_order",
       .label = "Column order",
       .help = "identity; act_order: largest inputs first; spearman: columns that vary alike next to each other.",
       .fallback = std::string("identity"),
       .domain = Choices{{"identity", "act_order", "spearman"}}},
      {.key = "percdamp",
       .label = "Damping",
       .help = "Share of the mean diagonal added to H; more is stabler and further from the inputs.",
       .fallback = 0.01,
       .domain = RealRange{0.0, 10.0}},
      {.key = "sym",
       .label = "Symmetric",
       .help = "One range around 0, no zeros; smaller, and worse for one-sided groups.",
       .fallback = false,
       .advanced = true,
       .aliases = {"sym_w"}},
      {.key = "simplified_outliers",
       .label = "Simplified outliers",
       .help = "Fits groups without looking for outliers first: faster, a little worse.",
       .fallback = false,
       .advanced = true},
      {.key = "round_zero",
       .label = "Round zeros",
       .help = "Zeros become whole codes.",
       .fallback = false,
       .advanced = true},
      {.key = "qq_zero_sym",
       .label = "Symmetric zeros",
       .help = "The second level of zeros has one range around 0.",
       .fallback = false,
       .advanced = true},
      {.key = "block_size",
       .label = "Block size",
       .help = "Columns between two updates of the rest of the matrix: speed only.",
       .fallback = 128,
       .domain = IntRange{1, 65536},
       .advanced = true}};
  append_layerwise_params(params);
  const ParamSet near_lossless = {{"bits", 3},
                                  {"group_size", 16},
                                  {"outlier_threshold", 0.2},
                                  {"permutation_order", std::string("act_order")},
                                  {"percdamp", 1.0}};
  return {
      {.id = "spqr",
       .title = "SpQR",
       .family = MethodFamily::Weight,
       .paper = "arXiv:2306.03078",
       .citation = "Dettmers et al., SpQR: A Sparse-Quantized Representation for Near-Lossless LLM Weight "
                   "Compression, ICLR 2024",
       .summary = "GPTQ's sweep with very small groups whose scales and zeros are quantized too, and outlier weights "
                  "kept in 16 bits.",
       .params = std::move(params),
       .presets = {{.label = "SpQR near-lossless", .params = near_lossless, .source = "arXiv:2306.03078, appendix"},
                   {.label = "SpQR 3.99 bits",
                    .params = {{"bits", 3},
                               {"group_size", 16},
                               {"outlier_threshold", 0.25},
                               {"permutation_order", std::string("act_order")}},
                    .source = "aiha-lab/qllm-infer, LLaMA-3.1-8B"},
                   {.label = "SpQR 3.07 bits",
                    .params = {{"bits", 2},
                               {"group_size", 32},
                               {"outlier_threshold", 0.5},
                               {"permutation_order", std::string("act_order")}},
                    .source = "aiha-lab/qllm-infer, LLaMA-3.1-8B"}},
       .may_follow = {"smoothquant"},
       .needs_calibration = true,
       .calibration_need = CalibrationNeed::TokenWindows,
       .effective_bits_formula =
           "bits + (qq_scale_bits + qq_zero_bits) / group_size + 64 / (group_size * qq_group_size) + 32 * outliers"},
      [](const ParamSet& set) -> std::unique_ptr<WeightMethod> { return std::make_unique<SpqrMethod>(set); }};
}

}  // namespace qs
