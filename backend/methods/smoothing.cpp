#include "backend/methods/smoothing.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>

#include "backend/methods/weight_codes.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kFloor = 1e-5;

at::Tensor column_absmax(const std::vector<at::Tensor>& weights) {
  at::Tensor maximum;
  for (const at::Tensor& weight : weights) {
    const at::Tensor columns = at::amax(weight.to(at::kFloat).abs(), {0});
    maximum = maximum.defined() ? at::maximum(maximum, columns) : columns;
  }
  return maximum;
}

at::Tensor scale_of(const at::Tensor& activation_absmax, const at::Tensor& weight_absmax, double alpha,
                    bool compat_reference) {
  const at::Tensor scale = (activation_absmax.pow(alpha) / weight_absmax.pow(1.0 - alpha)).clamp_min(kFloor);
  return compat_reference ? scale : at::where(activation_absmax == 0, at::ones_like(scale), scale);
}

/// Divides the rows of what produces a channel and multiplies the columns of what reads it.
void replace_weight(std::shared_ptr<const LinearOp>& op, const std::string& name, const at::Tensor& row_divisor,
                    const at::Tensor& column_factor, at::ScalarType type) {
  require_floating_point(*op, name);
  at::Tensor weight = op->weight(), bias = op->bias();
  if (column_factor.defined()) weight = weight * column_factor;
  if (row_divisor.defined()) {
    weight = weight / row_divisor.unsqueeze(1);
    if (bias.defined()) bias = (bias.to(at::kFloat) / row_divisor).to(bias.scalar_type());
  }
  op = std::make_shared<DenseLinear>(weight.to(type), bias);
}

at::Tensor stored_weight(const std::shared_ptr<const LinearOp>& op, const std::string& name) {
  require_floating_point(*op, name);
  return op->weight();
}

/// S3: the norm's output divided by `scale`.
void divide_norm(const ArchitectureSpec& spec, NormWeights& norm, const at::Tensor& scale) {
  const at::Tensor weight = norm.weight.to(at::kFloat);
  const at::Tensor divided = spec.norm == NormKind::RmsNormPlusOne ? (weight + 1.0) / scale - 1.0 : weight / scale;
  norm.weight = divided.to(norm.weight.scalar_type());
  if (norm.bias.defined()) norm.bias = (norm.bias.to(at::kFloat) / scale).to(norm.bias.scalar_type());
}

/// Largest smoothed input of each kind of linear of one layer.
class LargestInputs {
 public:
  void see(LinearKind kind, const at::Tensor& absmax) {
    double& largest = largest_[static_cast<std::size_t>(kind)];
    if (absmax.numel() > 0) largest = std::max(largest, absmax.max().item<double>());
  }
  const std::array<double, kLinearKinds.size()>& values() const { return largest_; }

 private:
  std::array<double, kLinearKinds.size()> largest_ = {};
};

bool smooths(const SmoothingOptions& options, std::int64_t layer) {
  return options.layers.empty() || std::any_of(options.layers.begin(), options.layers.end(),
                                               [layer](const LayerRange& range) { return range.holds(layer); });
}

/// Smooths one block.
class BlockSmoother {
 public:
  BlockSmoother(const ArchitectureSpec& spec, DecoderBlock& block, std::int64_t layer, const Calibration& calibration,
                const SmoothingOptions& options)
      : spec_(spec), block_(block), layer_(layer), calibration_(calibration), options_(options) {}

  void fold_norm(const SmoothingPair& pair, NormWeights& norm) {
    const PairView view = pair_view(block_, layer_, pair, calibration_);
    const double alpha = options_.choose_alpha ? options_.choose_alpha(view) : options_.alpha;
    const at::Tensor scale = smoothing_scales(view.absmax, view.weights, alpha, options_.compat_reference).scale;
    divide_norm(spec_, norm, scale);
    for (const PairReader& reader : view.readers) replace_weight(*reader.op, reader.name, {}, scale, compute_type());
    for (const LinearKind kind : pair.linears) largest_.see(kind, view.absmax / scale);
  }

  /// down_proj and o_proj, whose inputs are no norm's output.
  void fold_inner() {
    for (LinearSlot& slot : linear_slots(block_, layer_)) {
      if (slot.kind == LinearKind::Down) fold_down(slot);
      if (slot.kind == LinearKind::O) fold_output(slot);
    }
  }

  const std::array<double, kLinearKinds.size()>& largest() const { return largest_.values(); }

 private:
  at::Tensor input_of(const LinearSlot& slot) const {
    const std::int64_t channels = (*slot.op)->in_features();
    if (slot.expert >= 0 && !calibration_.activation_absmax.count(slot.name)) return at::zeros({channels}, at::kFloat);
    return calibrated_absmax(calibration_, slot.name, channels);
  }

  std::shared_ptr<const LinearOp>& up_of(std::int64_t expert) {
    return expert < 0 ? block_.linear_slot(LinearKind::Up) : block_.experts[static_cast<std::size_t>(expert)].up;
  }

  void fold_down(const LinearSlot& down) {
    at::Tensor input = input_of(down);
    if (options_.extended && input.any().item<bool>()) {
      const at::Tensor scale =
          smoothing_scales(input, {stored_weight(*down.op, down.name)}, options_.alpha, options_.compat_reference)
              .scale;
      replace_weight(up_of(down.expert), linear_name(layer_, LinearKind::Up, down.expert), scale, {}, compute_type());
      replace_weight(*down.op, down.name, {}, scale, compute_type());
      input = input / scale;
    }
    largest_.see(LinearKind::Down, input);
  }

  /// All query heads of a group read the same value channel and share its scale.
  void fold_output(const LinearSlot& output) {
    at::Tensor input = input_of(output);
    if (options_.extended) {
      const std::int64_t group = spec_.heads / spec_.kv_heads;
      const auto over_group = [&](const at::Tensor& channels) {
        return at::amax(channels.view({spec_.kv_heads, group, spec_.head_dim}), {1});
      };
      const at::Tensor reader = column_absmax({stored_weight(*output.op, output.name)}).clamp_min(kFloor);
      const at::Tensor value_scale =
          scale_of(over_group(input), over_group(reader), options_.alpha, options_.compat_reference);
      const at::Tensor output_scale =
          value_scale.unsqueeze(1).expand({spec_.kv_heads, group, spec_.head_dim}).reshape({-1});
      replace_weight(block_.linear_slot(LinearKind::V), linear_name(layer_, LinearKind::V), value_scale.reshape({-1}),
                     {}, compute_type());
      replace_weight(*output.op, output.name, {}, output_scale, compute_type());
      input = input / output_scale;
    }
    largest_.see(LinearKind::O, input);
  }

  at::ScalarType compute_type() const { return block_.input_norm.weight.scalar_type(); }

  const ArchitectureSpec& spec_;
  DecoderBlock& block_;
  std::int64_t layer_;
  const Calibration& calibration_;
  const SmoothingOptions& options_;
  LargestInputs largest_;
};

}  // namespace

SmoothingScales smoothing_scales(const at::Tensor& activation_absmax, const std::vector<at::Tensor>& weights,
                                 double alpha, bool compat_reference) {
  SmoothingScales result;
  result.weight_absmax = column_absmax(weights).clamp_min(kFloor);
  result.scale = scale_of(activation_absmax.to(at::kFloat), result.weight_absmax, alpha, compat_reference);
  return result;
}

std::vector<SmoothingPair> smoothing_pairs(const ArchitectureSpec& spec) {
  if (spec.norm_placement == NormPlacement::Post)
    throw Error(ErrorCode::Unsupported,
                "'" + spec.architecture +
                    "' norms after each residual addition, as OPT-350M does: the norm's output is also the residual "
                    "stream, so scales cannot be folded into it. Choose another size of the model, or another method.");
  std::vector<LinearKind> attention = {LinearKind::Q, LinearKind::K, LinearKind::V};
  std::vector<LinearKind> mlp = {LinearKind::Up};
  if (spec.gated_mlp) mlp.insert(mlp.begin(), LinearKind::Gate);
  if (spec.shared_norm) {
    attention.insert(attention.end(), mlp.begin(), mlp.end());
    return {{"input_layernorm", attention}};
  }
  return {{"input_layernorm", attention},
          {spec.output_norms ? "pre_feedforward_layernorm" : "post_attention_layernorm", mlp, spec.experts > 0}};
}

std::string pair_name(const SmoothingPair& pair, std::int64_t layer) {
  return "layers." + std::to_string(layer) + "." + pair.norm;
}

std::string pair_input(const SmoothingPair& pair, std::int64_t layer) {
  return pair.routed ? router_name(layer) : linear_name(layer, pair.linears.front());
}

std::vector<PairReader> pair_readers(DecoderBlock& block, std::int64_t layer, const SmoothingPair& pair) {
  std::vector<PairReader> readers;
  if (pair.routed) readers.push_back({router_name(layer), &block.router, false});
  for (LinearSlot& slot : linear_slots(block, layer))
    if ((slot.expert >= 0) == pair.routed &&
        std::find(pair.linears.begin(), pair.linears.end(), slot.kind) != pair.linears.end())
      readers.push_back({slot.name, slot.op});
  return readers;
}

PairView pair_view(DecoderBlock& block, std::int64_t layer, const SmoothingPair& pair, const Calibration& calibration) {
  PairView view;
  view.layer = layer;
  view.pair = &pair;
  view.readers = pair_readers(block, layer, pair);
  for (const PairReader& reader : view.readers) view.weights.push_back(stored_weight(*reader.op, reader.name));
  view.absmax = calibrated_absmax(calibration, pair_input(pair, layer), view.weights.front().size(1));
  return view;
}

at::Tensor calibrated_absmax(const Calibration& calibration, const std::string& name, std::int64_t in_features) {
  const auto found = calibration.activation_absmax.find(name);
  if (found == calibration.activation_absmax.end()) {
    throw Error(ErrorCode::InvalidArgument, "The calibration '" + calibration.source +
                                                "' has no activation maxima for '" + name +
                                                "'. Calibrate on this model again.");
  }
  if (found->second.numel() != in_features) {
    throw Error(ErrorCode::InvalidArgument, "The calibration '" + calibration.source + "' has " +
                                                std::to_string(found->second.numel()) + " channels for '" + name +
                                                "', the model has " + std::to_string(in_features) +
                                                ". It was made on another model.");
  }
  if (!at::isfinite(found->second).all().item<bool>()) {
    throw Error(ErrorCode::InvalidArgument,
                "The calibration '" + calibration.source + "' holds NaN or infinity for '" + name + "'.");
  }
  return found->second.to(at::kFloat);
}

DecoderWeights smooth_decoder(const ArchitectureSpec& spec, DecoderWeights weights, const Calibration& calibration,
                              const SmoothingOptions& options, std::vector<double>* activation_absmax,
                              const JobContext& job) {
  if (options.extended && !spec.gated_mlp && spec.activation != ActivationKind::Relu)
    throw Error(ErrorCode::Unsupported,
                "extended=true folds scales of down_proj through the activation, which is exact for a gated MLP or "
                "ReLU; '" +
                    spec.architecture + "' has an ungated GELU. Leave extended out.");
  const std::vector<SmoothingPair> pairs = smoothing_pairs(spec);
  const auto layers = static_cast<std::int64_t>(weights.blocks.size());
  if (activation_absmax) activation_absmax->clear();
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    job.checkpoint(layer, layers, "Smoothing");
    if (!smooths(options, layer)) {
      if (activation_absmax) activation_absmax->insert(activation_absmax->end(), kLinearKinds.size(), 0.0);
      continue;
    }
    DecoderBlock& block = weights.blocks[static_cast<std::size_t>(layer)];
    BlockSmoother smoother(spec, block, layer, calibration, options);
    smoother.fold_norm(pairs.front(), block.input_norm);
    if (pairs.size() > 1) smoother.fold_norm(pairs[1], block.mlp_norm);
    smoother.fold_inner();
    if (activation_absmax)
      activation_absmax->insert(activation_absmax->end(), smoother.largest().begin(), smoother.largest().end());
  }
  job.checkpoint(layers, layers, "Smoothing");
  return weights;
}

}  // namespace qs
