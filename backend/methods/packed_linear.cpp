#include "backend/methods/packed_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "backend/methods/code_run.h"
#include "backend/types/error.h"
#include "kernels/dispatch.h"
#include "kernels/gemv.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

constexpr std::int64_t kGemvTokens = 16;
constexpr std::int64_t kBlockRows = 256;  // a multiple of kernels::kWeightTileRows
constexpr std::int64_t kInt8MaxFeatures = 32768;

at::ScalarType scalar_type(ScaleType type) {
  return type == ScaleType::F16 ? at::kHalf : type == ScaleType::BF16 ? at::kBFloat16 : at::kFloat;
}

bool kernel_range(const ActivationQuantization& a) {
  return !a.off() && a.group_size < 0 && !a.per_tensor && a.static_absmax == 0.0 && a.bits <= 8 &&
         (a.quantizer == QuantizerKind::Absmax || !a.symmetric);
}

PackedLinear::Form choose_form(const WeightQuantizer& quantizer, const ActivationQuantization& activations,
                               std::int64_t in_features, std::int64_t group_size) {
  if (quantizer.affine.bits == 8 && quantizer.granularity != Granularity::Group && kernel_range(activations) &&
      in_features <= kInt8MaxFeatures) {
    return PackedLinear::Form::Int8;
  }
  const int bits = quantizer.affine.bits;
  const bool width = bits == 2 || bits == 3 || bits == 4 || bits == 8;
  if (width && in_features % 8 == 0 && group_size % 8 == 0 && in_features % group_size == 0 &&
      quantizer.granularity != Granularity::PerTensor && quantizer.affine.scale_type == ScaleType::F16) {
    return PackedLinear::Form::Gemv;
  }
  return PackedLinear::Form::Bits;
}

}  // namespace

PackedLinear::PackedLinear(const WeightCodes& codes, const WeightQuantizer& quantizer, const at::Tensor& bias,
                           const ActivationQuantization& activations)
    : bits_(quantizer.affine.bits),
      out_features_(codes.codes.size(0)),
      in_features_(codes.codes.size(1)),
      per_tensor_(quantizer.granularity == Granularity::PerTensor),
      bias_(bias),
      activations_(activations) {
  group_size_ = in_features_ / codes.scale.size(1);
  if (quantizer.granularity == Granularity::Group && quantizer.group_size > 0) group_size_ = quantizer.group_size;
  if (codes.order.defined()) order_ = codes.order.to(at::kInt).contiguous();
  form_ = choose_form(quantizer, activations, in_features_, group_size_);
  scale_ = codes.scale.to(scalar_type(quantizer.affine.scale_type)).contiguous();

  const at::Tensor code_bytes = codes.codes.contiguous();
  const auto* raw = code_bytes.data_ptr<std::uint8_t>();
  const std::int64_t count = out_features_ * in_features_;
  if (form_ == Form::Int8) {
    codes_.resize(static_cast<std::size_t>(count));
    std::transform(raw, raw + count, codes_.begin(),
                   [](std::uint8_t code) { return static_cast<std::uint8_t>(code ^ 0x80); });
    code_sums_.resize(static_cast<std::size_t>(out_features_));
    kernels::sum_rows(reinterpret_cast<const std::int8_t*>(codes_.data()), out_features_, in_features_,
                      code_sums_.data());
  } else if (form_ == Form::Gemv) {
    codes_.resize(static_cast<std::size_t>(out_features_ * kernels::packed_row_bytes(in_features_, bits_)));
    kernels::pack_weight(raw, out_features_, in_features_, bits_, codes_.data());
  } else {
    codes_ = pack_run(raw, count, bits_);
  }

  const at::Tensor zero_bytes = codes.zero_point.to(at::kByte).contiguous();
  if (quantizer.stores_zero_points()) {
    zeros_ = pack_run(zero_bytes.data_ptr<std::uint8_t>(), zero_bytes.numel(), bits_);
  } else {
    constant_zero_ = codes.zero_point.view({-1})[0].item<float>();
  }
}

std::vector<std::uint8_t> PackedLinear::zero_points() const {
  const std::int64_t count = scale_.numel();
  std::vector<std::uint8_t> zeros(static_cast<std::size_t>(count), static_cast<std::uint8_t>(constant_zero_));
  if (!zeros_.empty()) unpack_run(zeros_, 0, count, bits_, zeros.data());
  return zeros;
}

at::Tensor PackedLinear::scales() const {
  const at::Tensor wide = scale_.to(at::kFloat);
  return per_tensor_ ? wide.expand({out_features_, 1}).contiguous() : wide;
}

void PackedLinear::unpack_rows(std::int64_t begin, std::int64_t end, std::uint8_t* codes) const {
  const std::int64_t rows = end - begin;
  if (form_ == Form::Int8) {
    std::transform(codes_.begin() + begin * in_features_, codes_.begin() + end * in_features_, codes,
                   [](std::uint8_t code) { return static_cast<std::uint8_t>(code ^ 0x80); });
  } else if (form_ == Form::Gemv) {
    const std::int64_t tiles_begin = begin * kernels::packed_row_bytes(in_features_, bits_);
    kernels::unpack_weight(codes_.data() + tiles_begin, rows, in_features_, bits_, codes);
  } else {
    unpack_run(codes_, begin * in_features_, rows * in_features_, bits_, codes);
  }
}

at::Tensor PackedLinear::rows_dequantized(std::int64_t begin, std::int64_t end) const {
  const std::int64_t rows = end - begin, groups = (in_features_ + group_size_ - 1) / group_size_;
  at::Tensor codes = at::empty({rows, in_features_}, at::kByte);
  unpack_rows(begin, end, codes.data_ptr<std::uint8_t>());
  at::Tensor zeros = at::full({1, 1}, constant_zero_, at::kFloat);
  if (!zeros_.empty()) {
    const std::int64_t first = per_tensor_ ? 0 : begin * groups, count = per_tensor_ ? 1 : rows * groups;
    at::Tensor bytes = at::empty({per_tensor_ ? 1 : rows, per_tensor_ ? 1 : groups}, at::kByte);
    unpack_run(zeros_, first, count, bits_, bytes.data_ptr<std::uint8_t>());
    zeros = bytes.to(at::kFloat);
  }
  const at::Tensor scale = per_tensor_ ? scale_.to(at::kFloat) : scale_.narrow(0, begin, rows).to(at::kFloat);
  if (in_features_ % group_size_ != 0) {
    const at::Tensor group = at::floor_divide(at::arange(in_features_, at::kLong), group_size_);
    if (zeros.numel() > 1) zeros = zeros.index_select(1, group);
    return codes.to(at::kFloat).sub_(zeros).mul_(scale.index_select(1, group));
  }
  return codes.to(at::kFloat)
      .view({rows, groups, group_size_})
      .sub_(zeros.unsqueeze(-1))
      .mul_(scale.unsqueeze(-1))
      .view({rows, in_features_});
}

at::Tensor PackedLinear::apply_int8(const at::Tensor& x) const {
  const std::int64_t tokens = x.size(0);
  const auto count = static_cast<std::size_t>(tokens);
  std::vector<std::uint8_t> codes(count * static_cast<std::size_t>(in_features_));
  std::vector<float> token_scale(count);
  std::vector<std::int32_t> token_zero(count), token_sum(count);
  const kernels::QuantizedActivations quantized{codes.data(), token_scale.data(), token_zero.data(), token_sum.data()};
  const kernels::KernelSet& set = kernels::kernel_set();
  const auto range = activations_.quantizer == QuantizerKind::Absmax ? kernels::ActivationRange::Absmax
                                                                     : kernels::ActivationRange::Affine;
  set.quantize_activations(x.data_ptr<float>(), tokens, in_features_, activations_.bits, range, quantized);

  const at::Tensor row_scale = scales();
  std::vector<std::int32_t> row_zero(static_cast<std::size_t>(out_features_));
  const std::vector<std::uint8_t> zeros = zero_points();
  for (std::size_t row = 0; row < row_zero.size(); ++row)
    row_zero[row] = static_cast<std::int32_t>(zeros[per_tensor_ ? 0 : row]) - 128;
  const kernels::Int8Weight weight{out_features_,
                                   in_features_,
                                   reinterpret_cast<const std::int8_t*>(codes_.data()),
                                   row_scale.data_ptr<float>(),
                                   row_zero.data(),
                                   code_sums_.data()};
  at::Tensor y = at::empty({tokens, out_features_}, at::kFloat);
  float* out = y.data_ptr<float>();
  const std::int64_t tiles = (out_features_ + kernels::kWeightTileRows - 1) / kernels::kWeightTileRows;
  at::parallel_for(0, tiles, 4, [&](std::int64_t begin, std::int64_t end) {
    set.int8_gemm(weight, quantized, tokens, begin * kernels::kWeightTileRows,
                  std::min(end * kernels::kWeightTileRows, out_features_), out);
  });
  return y;
}

at::Tensor PackedLinear::apply_gemv(const at::Tensor& x) const {
  const std::vector<std::uint8_t> zeros = zero_points();
  const kernels::PackedWeight weight{bits_,         out_features_,
                                     in_features_,  group_size_,
                                     codes_.data(), reinterpret_cast<const std::uint16_t*>(scale_.data_ptr<at::Half>()),
                                     zeros.data()};
  at::Tensor y = at::empty({x.size(0), out_features_}, at::kFloat);
  const float* in = x.data_ptr<float>();
  float* out = y.data_ptr<float>();
  const kernels::KernelSet& set = kernels::kernel_set();
  const std::int64_t tiles = (out_features_ + kernels::kWeightTileRows - 1) / kernels::kWeightTileRows;
  at::parallel_for(0, tiles, 4, [&](std::int64_t begin, std::int64_t end) {
    set.packed_gemv(weight, {in, x.size(0), out, begin * kernels::kWeightTileRows,
                             std::min(end * kernels::kWeightTileRows, out_features_)});
  });
  return y;
}

at::Tensor PackedLinear::apply_blocks(const at::Tensor& x) const {
  at::Tensor y = at::empty({x.size(0), out_features_}, at::kFloat);
  for (std::int64_t begin = 0; begin < out_features_; begin += kBlockRows) {
    const std::int64_t end = std::min(begin + kBlockRows, out_features_);
    y.narrow(1, begin, end - begin).copy_(at::mm(x, rows_dequantized(begin, end).t()));
  }
  return y;
}

at::Tensor PackedLinear::apply(const at::Tensor& x) const {
  at::Tensor wide = (form_ == Form::Int8 ? x : fake_quantize(x, activations_)).to(at::kFloat).contiguous();
  if (order_.defined()) wide = wide.index_select(1, order_);
  at::Tensor y;
  if (form_ == Form::Int8) {
    y = apply_int8(wide);
  } else if (form_ == Form::Gemv && wide.size(0) <= kGemvTokens) {
    y = apply_gemv(wide);
  } else {
    y = apply_blocks(wide);
  }
  if (bias_.defined()) y.add_(bias_.to(at::kFloat));
  return y.to(x.scalar_type());
}

at::Tensor PackedLinear::weight() const {
  const at::Tensor weight = rows_dequantized(0, out_features_);
  return order_.defined() ? weight.index_select(1, at::argsort(order_)) : weight;
}

LinearCodes PackedLinear::linear_codes(bool with_codes) const {
  const std::int64_t groups = per_tensor_ ? 1 : scale_.size(1);
  const std::vector<std::uint8_t> zeros = zero_points();
  LinearCodes all;
  all.bits = bits_;
  all.group_size = group_size_;
  all.scale = scale_.expand({out_features_, groups}).contiguous();
  all.zero_point = at::tensor(at::ArrayRef<std::uint8_t>(zeros), at::kByte)
                       .view({-1, groups})
                       .expand({out_features_, groups})
                       .contiguous();
  const at::Tensor places = at::floor_divide(at::arange(in_features_, at::kInt), group_size_).to(at::kInt);
  const at::Tensor original = order_.defined() ? at::argsort(order_) : at::Tensor();
  all.group_index = original.defined() ? places.index_select(0, original) : places;
  if (with_codes) {
    all.codes = at::empty({out_features_, in_features_}, at::kByte);
    unpack_rows(0, out_features_, all.codes.data_ptr<std::uint8_t>());
    if (original.defined()) all.codes = all.codes.index_select(1, original);
  }
  if (zeros_.empty() && constant_zero_ == static_cast<float>((1 << (bits_ - 1)) - 1)) {
    all.zero_point.add_(1);
    if (with_codes) all.codes.add_(1);
  }
  if (activations_.off()) return all;
  const bool absmax = activations_.quantizer == QuantizerKind::Absmax && activations_.bits == 8;
  all.inputs = absmax && kernel_range(activations_) ? CodedInputs::Int8Absmax : CodedInputs::Other;
  return all;
}

std::int64_t PackedLinear::bytes() const {
  const auto tensor_bytes = [](const at::Tensor& t) {
    return t.defined() ? static_cast<std::int64_t>(t.numel() * t.element_size()) : 0;
  };
  return static_cast<std::int64_t>(codes_.size() + zeros_.size() + code_sums_.size() * sizeof(std::int32_t)) +
         tensor_bytes(scale_) + tensor_bytes(order_) + tensor_bytes(bias_);
}

}  // namespace qs
