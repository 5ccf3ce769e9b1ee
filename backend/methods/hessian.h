#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
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

/// V, upper triangular, with H = V Vᵀ: the Cholesky factor of H reversed in both axes. It holds what a column sweep
/// needs (kernels/column_sweep.h); the factor of algorithm 1, H⁻¹ = UᵀU, is U = V⁻¹ and is never formed.
/// @param h  f32 [features, features]; its upper triangle becomes V, what lies below the diagonal means nothing then
/// @return false when H is not positive definite in f32
bool factorize_upper(at::Tensor& h, const JobContext& job);

/// V of a damped H: diagonal + damping * mean(diagonal), with `damping` multiplied by ten after each failed
/// factorization, beginning with at least 0.01, up to 1 (or up to the first value, when that is larger).
struct DampedFactor {
  at::Tensor upper;                ///< V as factorize_upper leaves it; undefined when every damping failed
  double damping = 0.0;            ///< the last one tried
  double added = 0.0;              ///< damping * mean(diagonal): what was added to each diagonal element
  std::int64_t attempts = 0;       ///< factorizations, the last one included
  std::vector<std::string> notes;  ///< says so when the first damping failed
};
/// @param hessian  f32 [features, features]; not changed
/// @param ones     columns whose diagonal becomes 1 after the damping (SpQR's dead columns); may be undefined
DampedFactor damped_factor(const at::Tensor& hessian, double damping, const at::Tensor& ones, const JobContext& job);

/// Σ over rows of ½ d H dᵀ, f64, for the rows d of `difference` [rows, features].
double proxy_loss(const at::Tensor& difference, const at::Tensor& hessian);

}  // namespace qs
