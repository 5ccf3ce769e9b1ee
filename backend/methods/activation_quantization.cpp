#include "backend/methods/activation_quantization.h"

#include <ATen/ATen.h>

#include "backend/methods/absmax.h"
#include "backend/methods/packed_linear.h"
#include "backend/model/affine_range.h"
#include "backend/types/error.h"

namespace qs {
namespace {

at::Tensor quantize_rows(const at::Tensor& rows, const ActivationQuantization& q) {
  if (q.quantizer == QuantizerKind::Absmax) {
    if (q.static_absmax > 0.0) {
      const double levels = static_cast<double>((1 << (q.bits - 1)) - 1);
      const double scale = q.static_absmax / levels;
      return at::round(rows / scale).clamp_(-levels, levels).mul_(scale);
    }
    const at::Tensor scale = absmax_scale(rows, q.bits);
    return at::round(rows / scale).mul_(scale);
  }
  const AffineRange range = affine_range(rows, q.bits, q.symmetric, q.compat_reference);
  return affine_values(affine_codes(rows, range, q.bits), range);
}

}  // namespace

QuantizerKind parse_quantizer(const std::string& id) {
  if (id == "affine") return QuantizerKind::Affine;
  if (id == "absmax") return QuantizerKind::Absmax;
  throw Error(ErrorCode::InvalidArgument, "quantizer must be affine or absmax; it is '" + id + "'.");
}

at::Tensor fake_quantize(const at::Tensor& x, const ActivationQuantization& quantization) {
  if (quantization.off() || x.numel() == 0) return x;
  const std::int64_t features = x.size(-1);
  const std::int64_t group = quantization.group_size > 0 ? quantization.group_size : features;
  if (features % group != 0) {
    throw Error(ErrorCode::InvalidArgument, "group_size_a=" + std::to_string(group) + " does not divide the " +
                                                std::to_string(features) + " input features of a layer.");
  }
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  const at::Tensor rows = quantization.per_tensor ? wide.view({1, -1}) : wide.view({-1, group});
  return quantize_rows(rows, quantization).view(x.sizes()).to(x.scalar_type());
}

QuantizedInputLinear::QuantizedInputLinear(std::shared_ptr<const LinearOp> inner, ActivationQuantization quantization)
    : inner_(std::move(inner)), quantization_(quantization) {}

at::Tensor QuantizedInputLinear::apply(const at::Tensor& x) const {
  return inner_->apply(fake_quantize(x, quantization_));
}

ActivationQuantization input_quantization(const LinearOp& linear) {
  if (const auto* wrapped = dynamic_cast<const QuantizedInputLinear*>(&linear)) return wrapped->quantization();
  if (const auto* packed = dynamic_cast<const PackedLinear*>(&linear)) return packed->activations();
  return {};
}

std::shared_ptr<const LinearOp> keep_input_quantization(const LinearOp& before, std::shared_ptr<const LinearOp> made) {
  const ActivationQuantization kept = input_quantization(before);
  if (kept.off() || !input_quantization(*made).off()) return made;
  return std::make_shared<QuantizedInputLinear>(std::move(made), kept);
}

}  // namespace qs
