#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "backend/methods/spqr.h"
#include "backend/model/decoder.h"
#include "kernels/spqr.h"

namespace qs {

/// A linear layer that computes from the codes of SpQR: dense codes in processing order with real zeros, plus outliers
/// as rows of (column, value).
///
/// An outlier's value replaces the dense weight; products add (value - dense weight) times the input, which is the
/// same, so that `weight` equals the reference bit for bit. Up to 16 tokens come straight from the codes when the
/// kernels know the form (kernels/spqr.h: 2, 3, 4, 8 bits, groups of a multiple of 8, f16, up to 65536 columns); more
/// by dequantizing blocks of rows.
///
/// Allocated are the codes, the statistics as they are stored (codes and 16-bit second levels, or 16 bits each), the
/// outliers at 16 + 16 bits (16 + 32 beyond 65536 columns), 32 bits a row for where its outliers begin, and 32 bits a
/// column for the order unless it is the identity. Row pointers and order are not in Q3.
class SpqrLinear final : public LinearOp {
 public:
  SpqrLinear(const SpqrResult& result, const SpqrOptions& options, at::Tensor bias);
  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor weight() const override;
  std::int64_t bytes() const override;
  std::int64_t in_features() const override { return in_; }
  std::int64_t out_features() const override { return out_; }
  bool packed() const override { return true; }
  at::Tensor bias() const override { return bias_; }
  std::int64_t outliers() const { return outlier_values_.numel(); }

  // What is stored, for views.
  int bits() const { return bits_; }
  std::int64_t group_size() const { return group_; }           ///< columns in processing order
  at::Tensor scale() const { return rounded_scale(); }         ///< f32 [groups, out_features]
  at::Tensor zero_point() const { return values_of(zeros_); }  ///< f32 [groups, out_features]
  /// Original column of each place in processing order, int32 [in_features]; undefined: identity.
  const at::Tensor& order() const { return order_; }
  const at::Tensor& outlier_rows() const { return outlier_rows_; }  ///< int32 [out_features + 1]
  std::int64_t outlier_column(std::int64_t k) const;                ///< of outlier k, in processing order

 private:
  /// Scales or zeros: codes with their second level, or plain values.
  struct Statistic {
    int bits = 0;  ///< 0: plain
    std::vector<std::uint8_t> codes;
    at::Tensor scale, zero;  ///< stored type [groups, out_features / run]
    at::Tensor plain;        ///< stored type [groups, out_features]
    std::int64_t bytes() const;
  };
  static Statistic pack(const SecondLevel& level, const at::Tensor& plain, int bits, at::ScalarType type);
  at::Tensor values_of(const Statistic& statistic) const;  ///< f32 [groups, out_features]
  at::Tensor rounded_scale() const;                        ///< in the stored type, as the sweep's result has it
  at::Tensor rows_dequantized(const at::Tensor& scale, const at::Tensor& zero, std::int64_t begin,
                              std::int64_t end) const;
  kernels::SpqrStatistic kernel_form(const Statistic& statistic) const;
  at::Tensor apply_codes(const at::Tensor& x) const;

  int bits_ = 0;
  bool kernel_layout_ = false;
  at::ScalarType type_ = at::kHalf;
  std::int64_t out_ = 0, in_ = 0, group_ = 0, groups_ = 0, run_ = 1;
  std::vector<std::uint8_t> codes_;
  Statistic scales_, zeros_;
  at::Tensor outlier_rows_;     ///< int32 [out_features + 1]
  at::Tensor outlier_columns_;  ///< int16 holding unsigned numbers, or int32
  at::Tensor outlier_values_;   ///< stored type
  at::Tensor order_;            ///< int32 [in_features]; undefined: identity
  at::Tensor bias_;
};

}  // namespace qs
