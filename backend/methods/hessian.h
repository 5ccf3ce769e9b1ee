#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backend/types/job.h"

namespace qs {

/// H = (2 / n) Σ XᵀX over the inputs X of n sequences (GPTQ, arXiv:2210.17323, equation 2; weights specification G1),
/// accumulated in f32.
class HessianSum {
 public:
  explicit HessianSum(std::int64_t features);
  /// @param x  [tokens, features], any float type: the inputs of one sequence, or of a share of one
  /// @param sequences  how many sequences end with these tokens
  void add(const at::Tensor& x, std::int64_t sequences, const JobContext& job);
  std::int64_t features() const { return features_; }
  std::int64_t tokens() const { return tokens_; }
  std::int64_t sequences() const { return sequences_; }
  /// f32 [features, features]; zeros before the first token.
  /// @throws Error InvalidArgument naming `name` and the column of a NaN or infinity
  at::Tensor matrix(const std::string& name) const;

 private:
  std::int64_t features_ = 0, tokens_ = 0, sequences_ = 0;
  at::Tensor sum_;  ///< Σ XᵀX; only the blocks on and right of the diagonal are kept up to date
};

/// U, upper triangular, with H⁻¹ = UᵀU. It comes from one Cholesky factorization of H reversed in both axes: H = V Vᵀ
/// with V upper gives U = V⁻¹, without forming H⁻¹.
/// @return nothing when H is not positive definite in f32
std::optional<at::Tensor> inverse_upper_factor(const at::Tensor& hessian, const JobContext& job);

/// The factor of a damped H: diagonal + damping * mean(diagonal), with `damping` multiplied by ten after each failed
/// factorization, beginning with at least 0.01, up to 1 (or up to the first value, when that is larger).
struct DampedFactor {
  at::Tensor upper;                ///< undefined when every damping failed
  double damping = 0.0;            ///< the last one tried
  double added = 0.0;              ///< damping * mean(diagonal): what was added to each diagonal element
  std::int64_t attempts = 0;       ///< factorizations, the last one included
  std::vector<std::string> notes;  ///< says so when the first damping failed
};
/// @param hessian  f32 [features, features]; changed only inside
/// @param ones     columns whose diagonal becomes 1 after the damping (SpQR's dead columns); may be undefined
DampedFactor damped_inverse_factor(const at::Tensor& hessian, double damping, const at::Tensor& ones,
                                   const JobContext& job);

/// Σ over rows of ½ d H dᵀ, f64, for the rows d of `difference` [rows, features].
double proxy_loss(const at::Tensor& difference, const at::Tensor& hessian);

}  // namespace qs
