#include "backend/methods/packed_from_codes.h"

#include <ATen/ATen.h>

#include "backend/methods/packed_linear.h"

namespace qs {
namespace {

/// The type in which the scales are kept: f16, which the kernels read, where it holds them exactly.
ScaleType scale_type(const at::Tensor& scale) {
  if (scale.scalar_type() == at::kHalf) return ScaleType::F16;
  const at::Tensor wide = scale.to(at::kFloat);
  if (at::equal(wide, wide.to(at::kHalf).to(at::kFloat))) return ScaleType::F16;
  return scale.scalar_type() == at::kBFloat16 ? ScaleType::BF16 : ScaleType::F32;
}

}  // namespace

std::shared_ptr<const LinearOp> packed_from_codes(const LinearCodes& codes, const at::Tensor& bias) {
  WeightQuantizer quantizer;
  quantizer.affine.bits = codes.bits;
  quantizer.affine.symmetric = codes.symmetric();
  quantizer.affine.scale_type = scale_type(codes.scale);
  quantizer.granularity = codes.groups() > 1 ? Granularity::Group : Granularity::PerChannel;
  quantizer.group_size = codes.groups() > 1 ? codes.group_size : -1;

  WeightCodes weight;
  weight.codes = codes.codes;
  weight.scale = codes.scale.to(at::kFloat);
  weight.zero_point = codes.zero_point.to(at::kFloat);
  if (!codes.groups_are_runs()) {
    weight.order = std::get<1>(at::sort(codes.group_index, /*stable=*/true, /*dim=*/0, /*descending=*/false));
    weight.codes = codes.codes.index_select(1, weight.order);
  }
  ActivationQuantization inputs;
  if (codes.inputs == CodedInputs::Int8Absmax) {
    inputs.bits = 8;
    inputs.quantizer = QuantizerKind::Absmax;
  }
  return std::make_shared<PackedLinear>(weight, quantizer, bias, inputs);
}

void load_codes_as_packed_linears() { set_packed_linear_factory(&packed_from_codes); }

}  // namespace qs
