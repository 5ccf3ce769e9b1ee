#include "backend/methods/weight_codes.h"

#include <ATen/ATen.h>

#include "backend/methods/absmax.h"
#include "backend/methods/packed_linear.h"
#include "backend/model/variant.h"
#include "backend/types/error.h"

namespace qs {
namespace {

std::int64_t nearest_group(std::int64_t features, std::int64_t wanted) {
  std::int64_t best = features;
  for (std::int64_t candidate = 1; candidate <= features; ++candidate) {
    if (features % candidate == 0 && std::abs(candidate - wanted) < std::abs(best - wanted)) best = candidate;
  }
  return best;
}

void check_finite_weight(const at::Tensor& weight, const std::string& name) {
  const at::Tensor finite = at::isfinite(weight);
  if (finite.all().item<bool>()) return;
  const std::int64_t first = at::argmin(finite.to(at::kByte).view({-1})).item<std::int64_t>();
  const std::int64_t row = first / weight.size(1), column = first % weight.size(1);
  const float value = weight.reshape({-1})[first].item<float>();
  throw Error(ErrorCode::InvalidArgument, "Weight '" + name + "' holds " + (std::isnan(value) ? "NaN" : "an infinity") +
                                              " in row " + std::to_string(row) + ", column " + std::to_string(column) +
                                              "; only finite weights can be quantized. The checkpoint may be damaged.");
}

}  // namespace

at::Tensor finite_weight(const at::Tensor& weight, const std::string& name) {
  if (weight.dim() != 2 || weight.numel() == 0) {
    throw Error(ErrorCode::InvalidArgument,
                "Weight '" + name + "' must be a matrix [out_features, in_features] with elements.");
  }
  const at::Tensor wide = weight.to(at::kFloat).contiguous();
  check_finite_weight(wide, name);
  return wide;
}

void check_group_divides(std::int64_t features, std::int64_t group, const std::string& name) {
  if (features % group == 0) return;
  throw Error(ErrorCode::InvalidArgument, "group_size=" + std::to_string(group) + " does not divide the " +
                                              std::to_string(features) + " input features of '" + name +
                                              "'. The nearest that does is " +
                                              std::to_string(nearest_group(features, group)) + ".");
}

std::int64_t WeightQuantizer::levels() const {
  return kind == QuantizerKind::Absmax ? (std::int64_t{1} << affine.bits) - 1 : std::int64_t{1} << affine.bits;
}

double WeightQuantizer::effective_bits(std::int64_t out_features, std::int64_t in_features) const {
  if (off()) return 16.0;
  double groups = 1.0 / static_cast<double>(in_features);  // a weight
  if (granularity == Granularity::PerTensor) groups /= static_cast<double>(out_features);
  // GPTQ allows a short last group, which has parameters of its own.
  if (granularity == Granularity::Group && group_size > 0)
    groups *= static_cast<double>((in_features + group_size - 1) / group_size);
  const double parameters =
      8.0 * static_cast<double>(scale_bytes(affine.scale_type)) + (stores_zero_points() ? affine.bits : 0);
  return affine.bits + parameters * groups;
}

WeightCodes quantize_weight_codes(const at::Tensor& weight, const WeightQuantizer& quantizer, const std::string& name) {
  const at::Tensor wide = finite_weight(weight, name);
  const std::int64_t out_features = weight.size(0), in_features = weight.size(1);
  std::int64_t group = in_features;
  if (quantizer.granularity == Granularity::Group && quantizer.group_size > 0) group = quantizer.group_size;
  if (quantizer.granularity == Granularity::PerTensor) group = out_features * in_features;
  if (quantizer.granularity == Granularity::Group) check_group_divides(in_features, group, name);
  const at::Tensor rows = wide.view({-1, group});
  AffineRows quantized = quantizer.kind == QuantizerKind::Affine
                             ? quantize_affine(rows, quantizer.affine)
                             : quantize_absmax(rows, quantizer.affine.bits, quantizer.affine.scale_type);
  const std::int64_t scale_rows = quantizer.granularity == Granularity::PerTensor ? 1 : out_features;
  return {quantized.codes.view({out_features, in_features}),
          quantized.scale.view({scale_rows, -1}),
          quantized.zero_point.view({scale_rows, -1}),
          quantized.values.view({out_features, in_features}),
          {}};
}

QuantizedTensor as_quantized_tensor(const WeightCodes& codes, const at::Tensor& weight,
                                    const WeightQuantizer& quantizer) {
  QuantizedTensor result;
  result.values = codes.values.to(weight.scalar_type());
  result.codes = codes.codes;
  result.scale = codes.scale;
  result.group_min = -(codes.scale * codes.zero_point);
  result.levels = quantizer.levels();
  return result;
}

std::shared_ptr<const LinearOp> make_quantized_linear(const WeightCodes& codes, const WeightQuantizer& quantizer,
                                                      const at::Tensor& bias, const ActivationQuantization& activations,
                                                      WeightExecution execution, at::ScalarType compute_type) {
  if (execution == WeightExecution::Packed) return std::make_shared<PackedLinear>(codes, quantizer, bias, activations);
  std::shared_ptr<const LinearOp> linear = std::make_shared<DenseLinear>(codes.values.to(compute_type), bias);
  if (!activations.off()) linear = std::make_shared<QuantizedInputLinear>(std::move(linear), activations);
  return linear;
}

void require_floating_point(const LinearOp& linear, const std::string& name) {
  if (!linear.floating_point()) {
    throw Error(ErrorCode::Unsupported,
                "'" + name + "' is quantized already; a weight method needs the model in floating point.");
  }
}

}  // namespace qs
