#include "backend/methods/zeroquant_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "backend/methods/code_run.h"
#include "backend/methods/packed_linear.h"
#include "kernels/dispatch.h"
#include "kernels/gemv.h"

namespace qs {
namespace {

constexpr std::int64_t kBlockRows = 256;
constexpr std::int64_t kInt8MaxFeatures = 32768;
constexpr int kSignedOffset = 128;

at::ScalarType scalar_type(ScaleType type) {
  return type == ScaleType::F16 ? at::kHalf : type == ScaleType::BF16 ? at::kBFloat16 : at::kFloat;
}

bool fits_int8(const ZeroQuantWeight& quantizer, const TokenQuantization& tokens, const ZeroQuantCodes& codes) {
  const std::int64_t in = codes.codes.size(1);
  return quantizer.bits == 8 && quantizer.symmetric && codes.run_length == in && in <= kInt8MaxFeatures &&
         tokens.bits >= 2 && tokens.bits <= 8 && tokens.symmetric;
}

bool fits_packed(const ZeroQuantWeight& quantizer, const ZeroQuantCodes& codes) {
  const bool width = quantizer.bits == 2 || quantizer.bits == 3 || quantizer.bits == 4 || quantizer.bits == 8;
  const std::int64_t in = codes.codes.size(1);
  return width && quantizer.quantizer().grid != RunGrid::Asymmetric && quantizer.scale_type == ScaleType::F16 &&
         codes.run_length % 8 == 0 && in % codes.run_length == 0;
}

std::shared_ptr<const LinearOp> make_packed(const ZeroQuantCodes& codes, const ZeroQuantWeight& quantizer,
                                            const at::Tensor& bias) {
  const std::int64_t out = codes.codes.size(0), in = codes.codes.size(1);
  WeightQuantizer grid;
  grid.affine.bits = quantizer.bits;
  grid.affine.symmetric = true;  // one zero point for all
  grid.granularity = codes.run_length == in ? Granularity::PerChannel : Granularity::Group;
  grid.group_size = codes.run_length == in ? -1 : codes.run_length;
  const WeightCodes rows{codes.codes, codes.scale.view({out, -1}), codes.zero_point.view({out, -1}), codes.values, {}};
  return std::make_shared<PackedLinear>(rows, grid, bias, ActivationQuantization{});
}

}  // namespace

ZeroQuantLinear::ZeroQuantLinear(const ZeroQuantCodes& codes, const ZeroQuantWeight& quantizer, const at::Tensor& bias,
                                 const TokenQuantization& tokens)
    : form_(fits_int8(quantizer, tokens, codes) ? Form::Int8 : Form::Runs),
      bits_(quantizer.bits),
      out_features_(codes.codes.size(0)),
      in_features_(codes.codes.size(1)),
      run_length_(codes.run_length),
      scale_(codes.scale.to(scalar_type(quantizer.scale_type)).contiguous()),
      bias_(bias),
      tokens_(tokens) {
  const at::Tensor bytes = codes.codes.contiguous();
  const auto* raw = bytes.data_ptr<std::uint8_t>();
  const std::int64_t count = bytes.numel();
  if (form_ == Form::Int8) {
    signed_codes_.resize(static_cast<std::size_t>(count));
    std::transform(raw, raw + count, signed_codes_.begin(),
                   [](std::uint8_t code) { return static_cast<std::int8_t>(static_cast<int>(code) - kSignedOffset); });
    code_sums_.resize(static_cast<std::size_t>(out_features_));
    kernels::sum_rows(signed_codes_.data(), out_features_, in_features_, code_sums_.data());
    return;
  }
  codes_ = pack_run(raw, count, bits_);
  const at::Tensor zero = codes.zero_point.to(at::kFloat).contiguous();
  if (quantizer.quantizer().grid == RunGrid::Asymmetric) {
    const float* const points = zero.data_ptr<float>();
    zeros_.resize(static_cast<std::size_t>(zero.numel()));
    std::transform(points, points + zero.numel(), zeros_.begin(),
                   [](float point) { return static_cast<std::int16_t>(std::lrint(point)); });
  } else {
    constant_zero_ = zero[0].item<float>();
  }
}

at::Tensor ZeroQuantLinear::rows_dequantized(std::int64_t begin, std::int64_t end) const {
  const std::int64_t count = (end - begin) * in_features_, first = begin * in_features_;
  at::Tensor rows = at::empty({end - begin, in_features_}, at::kFloat);
  if (form_ == Form::Int8) {
    const at::Tensor codes = at::from_blob(const_cast<std::int8_t*>(signed_codes_.data()) + first, rows.sizes(),
                                           at::TensorOptions(at::kChar));
    return codes.to(at::kFloat).mul_(scale_.narrow(0, begin, end - begin).to(at::kFloat).unsqueeze(1));
  }
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(count));
  unpack_run(codes_, first, count, bits_, codes.data());
  const std::int64_t first_run = first / run_length_, last_run = (first + count - 1) / run_length_;
  const at::Tensor scales = scale_.narrow(0, first_run, last_run - first_run + 1).to(at::kFloat).contiguous();
  const float* const scale = scales.data_ptr<float>();
  float* const out = rows.data_ptr<float>();
  at::parallel_for(first_run, last_run + 1, 1 + 65536 / run_length_, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t run = from; run < to; ++run) {
      const std::int64_t low = std::max(run * run_length_ - first, std::int64_t{0});
      const std::int64_t high = std::min((run + 1) * run_length_ - first, count);
      const float zero = zeros_.empty() ? constant_zero_ : static_cast<float>(zeros_[static_cast<std::size_t>(run)]);
      const float step = scale[run - first_run];
      for (std::int64_t i = low; i < high; ++i)
        out[i] = (static_cast<float>(codes[static_cast<std::size_t>(i)]) - zero) * step;
    }
  });
  return rows;
}

at::Tensor ZeroQuantLinear::apply_int8(const at::Tensor& x) const {
  const std::int64_t tokens = x.size(0);
  const at::Tensor scales = token_scale(x, tokens_);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(x.numel()));
  std::vector<std::int32_t> zero(static_cast<std::size_t>(tokens), kSignedOffset), sum(zero.size());
  const float half = static_cast<float>(1 << (tokens_.bits - 1));
  const float* const input = x.data_ptr<float>();
  float* const scale = scales.data_ptr<float>();
  at::parallel_for(0, tokens, 1 + 65536 / in_features_, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t token = begin; token < end; ++token) {
      std::int32_t total = 0;
      for (std::int64_t i = token * in_features_; i < (token + 1) * in_features_; ++i) {
        const float steps = std::clamp(std::nearbyint(input[i] / scale[token]), -half, half - 1.0f);
        const int code = static_cast<int>(steps) + kSignedOffset;
        codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(code);
        total += code;
      }
      sum[static_cast<std::size_t>(token)] = total;
    }
  });
  const kernels::QuantizedActivations quantized{codes.data(), scale, zero.data(), sum.data()};
  const at::Tensor row_scale = scale_.to(at::kFloat);
  const kernels::Int8Weight weight{out_features_, in_features_,     signed_codes_.data(), row_scale.data_ptr<float>(),
                                   nullptr,       code_sums_.data()};
  at::Tensor y = at::empty({tokens, out_features_}, at::kFloat);
  float* const out = y.data_ptr<float>();
  const kernels::KernelSet& set = kernels::kernel_set();
  constexpr std::int64_t kTile = 16;
  at::parallel_for(0, (out_features_ + kTile - 1) / kTile, 4, [&](std::int64_t begin, std::int64_t end) {
    set.int8_gemm(weight, quantized, tokens, begin * kTile, std::min(end * kTile, out_features_), out);
  });
  return y;
}

at::Tensor ZeroQuantLinear::apply_blocks(const at::Tensor& x) const {
  const at::Tensor input = quantize_tokens(x, tokens_);
  at::Tensor y = at::empty({x.size(0), out_features_}, at::kFloat);
  for (std::int64_t begin = 0; begin < out_features_; begin += kBlockRows) {
    const std::int64_t end = std::min(begin + kBlockRows, out_features_);
    y.narrow(1, begin, end - begin).copy_(at::mm(input, rows_dequantized(begin, end).t()));
  }
  return y;
}

at::Tensor ZeroQuantLinear::apply(const at::Tensor& x) const {
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  at::Tensor y = form_ == Form::Int8 && wide.size(0) > 0 ? apply_int8(wide) : apply_blocks(wide);
  if (bias_.defined()) y.add_(bias_.to(at::kFloat));
  return y.to(x.scalar_type());
}

at::Tensor ZeroQuantLinear::weight() const { return rows_dequantized(0, out_features_); }

std::int64_t ZeroQuantLinear::bytes() const {
  const auto tensor_bytes = [](const at::Tensor& t) {
    return t.defined() ? static_cast<std::int64_t>(t.numel() * t.element_size()) : 0;
  };
  return static_cast<std::int64_t>(codes_.size() + signed_codes_.size() + zeros_.size() * sizeof(std::int16_t) +
                                   code_sums_.size() * sizeof(std::int32_t)) +
         tensor_bytes(scale_) + tensor_bytes(bias_);
}

std::shared_ptr<const LinearOp> make_zeroquant_linear(const ZeroQuantCodes& codes, const ZeroQuantWeight& quantizer,
                                                      const at::Tensor& bias, const TokenQuantization& tokens,
                                                      WeightExecution execution, at::ScalarType compute_type) {
  std::shared_ptr<const LinearOp> linear;
  if (execution == WeightExecution::Simulated) {
    linear = std::make_shared<DenseLinear>(codes.values.to(compute_type), bias);
  } else if (!fits_packed(quantizer, codes) || fits_int8(quantizer, tokens, codes)) {
    return std::make_shared<ZeroQuantLinear>(codes, quantizer, bias, tokens);
  } else {
    linear = make_packed(codes, quantizer, bias);
  }
  if (!tokens.off()) linear = std::make_shared<TokenQuantizedLinear>(std::move(linear), tokens);
  return linear;
}

}  // namespace qs
