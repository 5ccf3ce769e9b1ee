#include "backend/methods/lut_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "kernels/dispatch.h"

namespace qs {
namespace {

// Tokens times planes up to which the look-ups take less time than dequantizing blocks of rows and multiplying.
constexpr std::int64_t kF32LookUps = 64;
constexpr std::int64_t kIntegerLookUps = 160;
constexpr std::int64_t kBlockRows = 256;
constexpr std::int64_t kThreadRows = 256;  ///< a thread builds tables of its own, which this many rows pay for

at::ScalarType stored_type(ScaleType type) {
  return type == ScaleType::F16 ? at::kHalf : type == ScaleType::BF16 ? at::kBFloat16 : at::kFloat;
}

kernels::DenseType kernel_type(at::ScalarType type) {
  return type == at::kHalf       ? kernels::DenseType::F16
         : type == at::kBFloat16 ? kernels::DenseType::BF16
                                 : kernels::DenseType::F32;
}

std::int64_t tensor_bytes(const at::Tensor& t) {
  return t.defined() ? static_cast<std::int64_t>(t.numel() * t.element_size()) : 0;
}

}  // namespace

LutLinear::LutLinear(const BcqWeight& weight, ScaleType scale_type, const at::Tensor& bias,
                     kernels::LutArithmetic arithmetic)
    : bits_(weight.bits()),
      out_features_(weight.codes.size(0)),
      in_features_(weight.codes.size(1)),
      group_size_(weight.group_size()),
      arithmetic_(arithmetic),
      planes_(static_cast<std::size_t>(kernels::plane_words(in_features_) * bits_ * out_features_)),
      alpha_(weight.alpha.permute({1, 2, 0}).to(stored_type(scale_type)).contiguous()),
      bias_(bias) {
  if (weight.offset.defined()) offset_ = weight.offset.t().to(stored_type(scale_type)).contiguous();
  const at::Tensor contiguous = weight.codes.contiguous();
  const auto* const codes = contiguous.data_ptr<std::uint8_t>();
  at::parallel_for(0, kernels::plane_words(in_features_), 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t word = begin; word < end; ++word) {
      const std::int64_t columns = std::min<std::int64_t>(32, in_features_ - 32 * word);
      for (std::int64_t row = 0; row < out_features_; ++row) {
        const std::uint8_t* const code = codes + row * in_features_ + 32 * word;
        for (int plane = 0; plane < bits_; ++plane) {
          std::uint32_t packed = 0;
          for (std::int64_t t = 0; t < columns; ++t)
            packed |= static_cast<std::uint32_t>(code[t] >> plane & 1) << static_cast<unsigned>(t);
          planes_[static_cast<std::size_t>((word * bits_ + plane) * out_features_ + row)] = packed;
        }
      }
    }
  });
}

kernels::BitPlaneWeight LutLinear::planes() const {
  return {bits_,
          out_features_,
          in_features_,
          group_size_,
          planes_.data(),
          kernel_type(alpha_.scalar_type()),
          alpha_.data_ptr(),
          offset_.defined() ? offset_.data_ptr() : nullptr};
}

/// Rows [begin, end) of the weight, transposed: f32 [in_features, end - begin]. Sums as bcq_value does.
at::Tensor LutLinear::columns_dequantized(std::int64_t begin, std::int64_t end) const {
  const std::int64_t rows = end - begin;
  const at::Tensor alpha = alpha_.narrow(2, begin, rows).to(at::kFloat).contiguous();
  const at::Tensor offset =
      offset_.defined() ? offset_.narrow(1, begin, rows).to(at::kFloat).contiguous() : at::Tensor();
  at::Tensor block = at::empty({in_features_, rows}, at::kFloat);
  float* const values = block.data_ptr<float>();
  at::parallel_for(0, in_features_, 32, [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t column = from; column < to; ++column) {
      const std::int64_t group = column / group_size_, shift = column % 32;
      float* const out = values + column * rows;
      std::fill(out, out + rows, 0.0F);
      for (int plane = 0; plane < bits_; ++plane) {
        const std::uint32_t* const words = planes_.data() + (column / 32 * bits_ + plane) * out_features_ + begin;
        const float* const a = alpha.data_ptr<float>() + (group * bits_ + plane) * rows;
        for (std::int64_t row = 0; row < rows; ++row)
          out[row] += a[row] * (static_cast<float>(static_cast<std::int32_t>(words[row] >> shift & 1U)) * 2.0F - 1.0F);
      }
      const float* const add = offset.defined() ? offset.data_ptr<float>() + group * rows : nullptr;
      for (std::int64_t row = 0; row < rows; ++row) out[row] += add != nullptr ? add[row] : 0.0F;
    }
  });
  return block;
}

at::Tensor LutLinear::apply_tables(const at::Tensor& x) const {
  at::Tensor y = at::empty({x.size(0), out_features_}, at::kFloat);
  const kernels::BitPlaneWeight weight = planes();
  const float* const in = x.data_ptr<float>();
  float* const out = y.data_ptr<float>();
  const kernels::LutGemm product = kernels::kernel_set().lut_gemm;
  at::parallel_for(0, out_features_, kThreadRows, [&](std::int64_t begin, std::int64_t end) {
    product(weight, {in, x.size(0), out, begin, end}, arithmetic_);
  });
  return y;
}

at::Tensor LutLinear::apply_blocks(const at::Tensor& x) const {
  at::Tensor y = at::empty({x.size(0), out_features_}, at::kFloat);
  for (std::int64_t begin = 0; begin < out_features_; begin += kBlockRows) {
    const std::int64_t end = std::min(begin + kBlockRows, out_features_);
    y.narrow(1, begin, end - begin).copy_(at::mm(x, columns_dequantized(begin, end)));
  }
  return y;
}

at::Tensor LutLinear::apply(const at::Tensor& x) const {
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  const std::int64_t most = arithmetic_ == kernels::LutArithmetic::F32 ? kF32LookUps : kIntegerLookUps;
  at::Tensor y = wide.size(0) * bits_ <= most ? apply_tables(wide) : apply_blocks(wide);
  if (bias_.defined()) y.add_(bias_.to(at::kFloat));
  return y.to(x.scalar_type());
}

at::Tensor LutLinear::weight() const { return columns_dequantized(0, out_features_).t().contiguous(); }

std::int64_t LutLinear::bytes() const {
  return static_cast<std::int64_t>(planes_.size() * sizeof(std::uint32_t)) + tensor_bytes(alpha_) +
         tensor_bytes(offset_) + tensor_bytes(bias_);
}

}  // namespace qs
