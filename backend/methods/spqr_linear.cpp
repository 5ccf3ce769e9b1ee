#include "backend/methods/spqr_linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "backend/methods/code_run.h"
#include "backend/methods/spqr_grid.h"
#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"
#include "kernels/spqr.h"

namespace qs {
namespace {

constexpr std::int64_t kGemvTokens = 16;
constexpr std::int64_t kBlockRows = 256;  // a multiple of kernels::kWeightTileRows
constexpr std::int64_t kShortColumns = 65536;

at::ScalarType stored_type(ScaleType type) {
  return type == ScaleType::F16 ? at::kHalf : type == ScaleType::BF16 ? at::kBFloat16 : at::kFloat;
}

std::int64_t tensor_bytes(const at::Tensor& t) {
  return t.defined() ? static_cast<std::int64_t>(t.numel() * t.element_size()) : 0;
}

/// Outliers have no dense code of their own; they get the one of 0.
at::Tensor codes_with_zeros_at_outliers(const SpqrResult& result, int bits) {
  at::Tensor codes = result.codes.clone();
  const std::int64_t in = codes.size(1), group = in / result.scale.size(0), out = codes.size(0);
  const auto* const rows = result.outlier_rows.data_ptr<std::int32_t>();
  const auto* const columns = result.outlier_columns.data_ptr<std::int32_t>();
  const at::Tensor scale = result.scale.contiguous(), zero = result.zero_point.contiguous();
  const float top = static_cast<float>((1 << bits) - 1);
  for (std::int64_t row = 0; row < out; ++row) {
    for (std::int32_t k = rows[row]; k < rows[row + 1]; ++k) {
      const std::int64_t at = columns[k] / group * out + row;
      const RealZeroGrid grid{scale.data_ptr<float>()[at], zero.data_ptr<float>()[at]};
      codes.data_ptr<std::uint8_t>()[row * in + columns[k]] = static_cast<std::uint8_t>(grid.code(0.0F, top));
    }
  }
  return codes;
}

}  // namespace

std::int64_t SpqrLinear::Statistic::bytes() const {
  return static_cast<std::int64_t>(codes.size()) + tensor_bytes(scale) + tensor_bytes(zero) + tensor_bytes(plain);
}

SpqrLinear::Statistic SpqrLinear::pack(const SecondLevel& level, const at::Tensor& plain, int bits,
                                       at::ScalarType type) {
  Statistic statistic;
  if (level.codes.defined()) {
    const at::Tensor codes = level.codes.contiguous();
    statistic.bits = bits;
    statistic.codes = pack_run(codes.data_ptr<std::uint8_t>(), codes.numel(), bits);
    statistic.scale = level.scale.to(type).contiguous();
    statistic.zero = level.zero.to(type).contiguous();
  } else {
    statistic.plain = plain.to(type).contiguous();
  }
  return statistic;
}

SpqrLinear::SpqrLinear(const SpqrResult& result, const SpqrOptions& options, at::Tensor bias)
    : bits_(options.bits),
      out_(result.codes.size(0)),
      in_(result.codes.size(1)),
      group_(in_ / result.scale.size(0)),
      groups_(result.scale.size(0)),
      run_(options.qq_group_size),
      bias_(std::move(bias)) {
  const at::ScalarType type = type_ = stored_type(options.scale_type);
  const bool width = bits_ == 2 || bits_ == 3 || bits_ == 4 || bits_ == 8;
  kernel_layout_ =
      width && in_ % 8 == 0 && group_ % 8 == 0 && in_ <= kShortColumns && options.scale_type == ScaleType::F16;
  const at::Tensor codes = codes_with_zeros_at_outliers(result, bits_).contiguous();
  if (kernel_layout_) {
    codes_.resize(static_cast<std::size_t>(out_ * kernels::packed_row_bytes(in_, bits_)));
    kernels::pack_weight(codes.data_ptr<std::uint8_t>(), out_, in_, bits_, codes_.data());
  } else {
    codes_ = pack_run(codes.data_ptr<std::uint8_t>(), out_ * in_, bits_);
  }
  scales_ = pack(result.scales, result.scale, options.qq_scale_bits, type);
  // A constant zero point, (2^bits) / 2, needs no storage; kept as one row of the plain values.
  zeros_ = pack(result.zeros, options.symmetric ? result.zero_point.narrow(0, 0, 1).narrow(1, 0, 1) : result.zero_point,
                options.qq_zero_bits, type);
  outlier_rows_ = result.outlier_rows.clone();
  outlier_columns_ = in_ <= kShortColumns ? result.outlier_columns.to(at::kShort) : result.outlier_columns.clone();
  outlier_values_ = result.outlier_values.to(type);
  if (!result.order.equal(at::arange(in_, at::kLong))) order_ = result.order.to(at::kInt);
}

at::Tensor SpqrLinear::values_of(const Statistic& statistic) const {
  if (statistic.bits == 0) return statistic.plain.to(at::kFloat).expand({groups_, out_}).contiguous();
  at::Tensor codes = at::empty({groups_, out_}, at::kByte);
  unpack_run(statistic.codes, 0, codes.numel(), statistic.bits, codes.data_ptr<std::uint8_t>());
  return codes.to(at::kFloat)
      .view({groups_, out_ / run_, run_})
      .sub_(statistic.zero.to(at::kFloat).unsqueeze(-1))
      .mul_(statistic.scale.to(at::kFloat).unsqueeze(-1))
      .view({groups_, out_});
}

at::Tensor SpqrLinear::rounded_scale() const { return values_of(scales_).to(type_).to(at::kFloat); }

std::int64_t SpqrLinear::outlier_column(std::int64_t k) const {
  if (outlier_columns_.scalar_type() == at::kInt) return outlier_columns_.data_ptr<std::int32_t>()[k];
  return static_cast<std::uint16_t>(outlier_columns_.data_ptr<std::int16_t>()[k]);
}

at::Tensor SpqrLinear::rows_dequantized(const at::Tensor& scale, const at::Tensor& zero, std::int64_t begin,
                                        std::int64_t end) const {
  const std::int64_t rows = end - begin;
  at::Tensor codes = at::empty({rows, in_}, at::kByte);
  if (kernel_layout_) {
    kernels::unpack_weight(codes_.data() + begin * kernels::packed_row_bytes(in_, bits_), rows, in_, bits_,
                           codes.data_ptr<std::uint8_t>());
  } else {
    unpack_run(codes_, begin * in_, rows * in_, bits_, codes.data_ptr<std::uint8_t>());
  }
  const auto of_rows = [&](const at::Tensor& t) { return t.narrow(1, begin, rows).t().contiguous().unsqueeze(-1); };
  at::Tensor values =
      codes.to(at::kFloat).view({rows, groups_, group_}).sub_(of_rows(zero)).mul_(of_rows(scale)).view({rows, in_});
  const at::Tensor kept = outlier_values_.to(at::kFloat);
  const auto* const first = outlier_rows_.data_ptr<std::int32_t>();
  for (std::int64_t row = begin; row < end; ++row) {
    for (std::int32_t k = first[row]; k < first[row + 1]; ++k) {
      values.data_ptr<float>()[(row - begin) * in_ + outlier_column(k)] = kept.data_ptr<float>()[k];
    }
  }
  return values;
}

kernels::SpqrStatistic SpqrLinear::kernel_form(const Statistic& statistic) const {
  const auto half = [](const at::Tensor& t) {
    return t.defined() ? reinterpret_cast<const std::uint16_t*>(t.data_ptr<at::Half>()) : nullptr;
  };
  kernels::SpqrStatistic form;
  form.bits = statistic.bits;
  form.codes = statistic.codes.data();
  form.scale = half(statistic.scale);
  form.zero = half(statistic.zero);
  if (statistic.plain.defined() && statistic.plain.numel() == 1) {
    form.constant = statistic.plain.item<float>();
  } else {
    form.plain = half(statistic.plain);
  }
  return form;
}

at::Tensor SpqrLinear::apply_codes(const at::Tensor& x) const {
  kernels::SpqrWeight weight;
  weight.bits = bits_;
  weight.out_features = out_, weight.in_features = in_, weight.group_size = group_, weight.run = run_;
  weight.codes = codes_.data();
  weight.scales = kernel_form(scales_), weight.zeros = kernel_form(zeros_);
  weight.outlier_rows = outlier_rows_.data_ptr<std::int32_t>();
  weight.outlier_columns = reinterpret_cast<const std::uint16_t*>(outlier_columns_.data_ptr<std::int16_t>());
  weight.outlier_values = reinterpret_cast<const std::uint16_t*>(outlier_values_.data_ptr<at::Half>());
  const at::Tensor sums = x.view({x.size(0), groups_, group_}).sum(2);
  at::Tensor y = at::empty({x.size(0), out_}, at::kFloat);
  const kernels::SpqrGemv product = kernels::kernel_set().spqr_gemv;
  const std::int64_t tiles = (out_ + kernels::kWeightTileRows - 1) / kernels::kWeightTileRows;
  const float* const in = x.data_ptr<float>();
  const float* const group_sums = sums.data_ptr<float>();
  float* const out = y.data_ptr<float>();
  at::parallel_for(0, tiles, 4, [&](std::int64_t begin, std::int64_t end) {
    product(weight,
            {in, x.size(0), out, begin * kernels::kWeightTileRows, std::min(end * kernels::kWeightTileRows, out_)},
            group_sums);
  });
  return y;
}

at::Tensor SpqrLinear::apply(const at::Tensor& x) const {
  at::Tensor wide = x.to(at::kFloat).contiguous();
  if (order_.defined()) wide = wide.index_select(1, order_);
  at::Tensor y;
  if (kernel_layout_ && wide.size(0) <= kGemvTokens) {
    y = apply_codes(wide);
  } else {
    const at::Tensor scale = rounded_scale(), zero = values_of(zeros_);
    y = at::empty({wide.size(0), out_}, at::kFloat);
    for (std::int64_t begin = 0; begin < out_; begin += kBlockRows) {
      const std::int64_t end = std::min(begin + kBlockRows, out_);
      y.narrow(1, begin, end - begin).copy_(at::mm(wide, rows_dequantized(scale, zero, begin, end).t()));
    }
  }
  if (bias_.defined()) y.add_(bias_.to(at::kFloat));
  return y.to(x.scalar_type());
}

at::Tensor SpqrLinear::weight() const {
  const at::Tensor values = rows_dequantized(rounded_scale(), values_of(zeros_), 0, out_);
  return order_.defined() ? values.index_select(1, at::argsort(order_)) : values;
}

std::int64_t SpqrLinear::bytes() const {
  return static_cast<std::int64_t>(codes_.size()) + scales_.bytes() + zeros_.bytes() + tensor_bytes(outlier_rows_) +
         tensor_bytes(outlier_columns_) + tensor_bytes(outlier_values_) + tensor_bytes(order_) + tensor_bytes(bias_);
}

}  // namespace qs
