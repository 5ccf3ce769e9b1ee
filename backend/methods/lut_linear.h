#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "backend/methods/bcq.h"
#include "backend/model/decoder.h"
#include "kernels/lut_gemm.h"

namespace qs {

/// A linear layer that computes from bit planes: LUT-GEMM (weights specification section 8, arXiv:2206.09557) for few
/// tokens; for more, blocks of rows are dequantized and multiplied.
///
/// Allocated are the planes (32 columns a word, so a row that is no multiple of 32 wastes the rest of its last word)
/// and alpha and offset in their stored type: b * (1 + 16 / g) bits a weight, with an offset + 16 / g.
class LutLinear final : public LinearOp {
 public:
  /// @param bias  may be undefined
  LutLinear(const BcqWeight& weight, ScaleType scale_type, const at::Tensor& bias,
            kernels::LutArithmetic arithmetic = kernels::LutArithmetic::F32);
  /// Sums in f32; differs from the dequantized product by their order only (F32), or for few tokens by what integer
  /// tables leave out (LutArithmetic).
  at::Tensor apply(const at::Tensor& x) const override;
  at::Tensor weight() const override;
  std::int64_t bytes() const override;
  std::int64_t in_features() const override { return in_features_; }
  std::int64_t out_features() const override { return out_features_; }
  bool packed() const override { return true; }
  at::Tensor bias() const override { return bias_; }
  /// The planes as the kernel reads them; lives as long as this layer.
  kernels::BitPlaneWeight planes() const;

 private:
  at::Tensor columns_dequantized(std::int64_t begin, std::int64_t end) const;
  at::Tensor apply_tables(const at::Tensor& x) const;
  at::Tensor apply_blocks(const at::Tensor& x) const;

  int bits_ = 0;
  std::int64_t out_features_ = 0, in_features_ = 0, group_size_ = 0;
  kernels::LutArithmetic arithmetic_;
  std::vector<std::uint32_t> planes_;  ///< [in_features / 32][bits][out_features]
  at::Tensor alpha_;                   ///< stored type [groups, bits, out_features]
  at::Tensor offset_;                  ///< stored type [groups, out_features]; undefined: 0
  at::Tensor bias_;
};

}  // namespace qs
