#include "backend/methods/smoothing.h"

#include <ATen/ATen.h>

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
void replace_weight(DecoderBlock& block, std::int64_t layer, LinearKind kind, const at::Tensor& row_divisor,
                    const at::Tensor& column_factor) {
  const DenseLinear& dense = dense_linear(block.linear(kind), linear_name(layer, kind));
  const at::ScalarType type = dense.stored_weight().scalar_type();
  at::Tensor weight = dense.stored_weight().to(at::kFloat), bias = dense.bias();
  if (column_factor.defined()) weight = weight * column_factor;
  if (row_divisor.defined()) {
    weight = weight / row_divisor.unsqueeze(1);
    if (bias.defined()) bias = (bias.to(at::kFloat) / row_divisor).to(bias.scalar_type());
  }
  block.linear_slot(kind) = std::make_shared<DenseLinear>(weight.to(type), bias);
}

at::Tensor stored_weight(const DecoderBlock& block, std::int64_t layer, LinearKind kind) {
  return dense_linear(block.linear(kind), linear_name(layer, kind)).stored_weight();
}

}  // namespace

SmoothingScales smoothing_scales(const at::Tensor& activation_absmax, const std::vector<at::Tensor>& weights,
                                 double alpha, bool compat_reference) {
  SmoothingScales result;
  result.weight_absmax = column_absmax(weights).clamp_min(kFloor);
  result.scale = scale_of(activation_absmax.to(at::kFloat), result.weight_absmax, alpha, compat_reference);
  return result;
}

const std::vector<SmoothingPair>& smoothing_pairs() {
  static const std::vector<SmoothingPair> pairs = {
      {"input_layernorm", {LinearKind::Q, LinearKind::K, LinearKind::V}},
      {"post_attention_layernorm", {LinearKind::Gate, LinearKind::Up}},
  };
  return pairs;
}

std::string pair_name(std::int64_t layer, std::size_t pair) {
  return "layers." + std::to_string(layer) + "." + smoothing_pairs()[pair].norm;
}

at::Tensor calibrated_absmax(const Calibration& calibration, std::int64_t layer, LinearKind kind,
                             std::int64_t in_features) {
  const std::string name = linear_name(layer, kind);
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
  const auto layers = static_cast<std::int64_t>(weights.blocks.size());
  if (activation_absmax) activation_absmax->assign(static_cast<std::size_t>(layers) * kLinearKinds.size(), 0.0);
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    job.checkpoint(layer, layers, "Smoothing");
    DecoderBlock& block = weights.blocks[static_cast<std::size_t>(layer)];
    std::array<at::Tensor, kLinearKinds.size()> inputs;
    for (const LinearKind kind : kLinearKinds) {
      inputs[static_cast<std::size_t>(kind)] =
          calibrated_absmax(calibration, layer, kind, block.linear(kind).in_features());
    }
    for (std::size_t pair = 0; pair < smoothing_pairs().size(); ++pair) {
      const std::vector<LinearKind>& linears = smoothing_pairs()[pair].linears;
      std::vector<at::Tensor> readers;
      for (const LinearKind kind : linears) readers.push_back(stored_weight(block, layer, kind));
      at::Tensor& first = inputs[static_cast<std::size_t>(linears.front())];
      const at::Tensor scale = smoothing_scales(first, readers, options.alpha, options.compat_reference).scale;
      at::Tensor& norm = pair == 0 ? block.input_norm : block.post_attention_norm;
      norm = (norm.to(at::kFloat) / scale).to(norm.scalar_type());
      const at::Tensor smoothed = first / scale;
      for (const LinearKind kind : linears) {
        replace_weight(block, layer, kind, {}, scale);
        inputs[static_cast<std::size_t>(kind)] = smoothed;
      }
    }
    if (options.extended) {
      at::Tensor& down = inputs[static_cast<std::size_t>(LinearKind::Down)];
      const at::Tensor down_scale = smoothing_scales(down, {stored_weight(block, layer, LinearKind::Down)},
                                                     options.alpha, options.compat_reference)
                                        .scale;
      replace_weight(block, layer, LinearKind::Up, down_scale, {});
      replace_weight(block, layer, LinearKind::Down, {}, down_scale);
      down = down / down_scale;

      // All query heads of a group read the same value channel and share its scale.
      at::Tensor& output = inputs[static_cast<std::size_t>(LinearKind::O)];
      const std::int64_t group = spec.heads / spec.kv_heads;
      const auto over_group = [&](const at::Tensor& channels) {
        return at::amax(channels.view({spec.kv_heads, group, spec.head_dim}), {1});
      };
      const at::Tensor reader = column_absmax({stored_weight(block, layer, LinearKind::O)}).clamp_min(kFloor);
      const at::Tensor value_scale =
          scale_of(over_group(output), over_group(reader), options.alpha, options.compat_reference);
      const at::Tensor output_scale =
          value_scale.unsqueeze(1).expand({spec.kv_heads, group, spec.head_dim}).reshape({-1});
      replace_weight(block, layer, LinearKind::V, value_scale.reshape({-1}), {});
      replace_weight(block, layer, LinearKind::O, {}, output_scale);
      output = output / output_scale;
    }
    if (activation_absmax) {
      for (const LinearKind kind : kLinearKinds) {
        (*activation_absmax)[static_cast<std::size_t>(layer) * kLinearKinds.size() + static_cast<std::size_t>(kind)] =
            inputs[static_cast<std::size_t>(kind)].max().item<double>();
      }
    }
  }
  job.checkpoint(layers, layers, "Smoothing");
  return weights;
}

}  // namespace qs
