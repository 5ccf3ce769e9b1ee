#include "backend/methods/hessian.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kFlopsAStep = 8e9;  // between two looks at the stop flag
constexpr std::int64_t kPanel = 256;
constexpr std::int64_t kSumPanel = 512;  // the squares on the diagonal are computed whole
constexpr std::int64_t kSolvePanel = 64;
constexpr double kFirstRetry = 0.01;
constexpr double kLastDamping = 1.0;

at::Tensor block(const at::Tensor& a, std::int64_t row, std::int64_t rows, std::int64_t column, std::int64_t columns) {
  return a.narrow(0, row, rows).narrow(1, column, columns);
}

/// Half of n, in whole panels when there are several.
std::int64_t half(std::int64_t n) { return n > 2 * kPanel ? (n / 2 + kPanel - 1) / kPanel * kPanel : n / 2; }

/// The recursions below halve their matrices, so that nearly all the work is done by large products.
class UpperFactorization {
 public:
  UpperFactorization(std::int64_t features, const JobContext& job) : features_(features), job_(job) {}

  /// A = V Vᵀ in the upper triangle, from the lower right corner up.
  bool factorize(at::Tensor a) {
    const std::int64_t n = a.size(0);
    if (n <= kPanel) return factorize_panel(a);
    const std::int64_t k = half(n);
    at::Tensor corner = block(a, k, n - k, k, n - k), right = block(a, 0, k, k, n - k);
    if (!factorize(corner)) return false;
    solve(right, corner);
    subtract_square(block(a, 0, k, 0, k), right);
    return factorize(block(a, 0, k, 0, k));
  }

 private:
  bool factorize_panel(at::Tensor& a) {
    const auto [factor, info] = at::linalg_cholesky_ex(at::flip(a, {0, 1}), false, false);
    if (info.item<int>() != 0 || !at::isfinite(factor).all().item<bool>()) return false;
    a.copy_(at::flip(factor, {0, 1}));
    done_ += a.size(0);
    return true;
  }

  /// B ← B V⁻ᵀ.
  void solve(at::Tensor b, const at::Tensor& v) {
    const std::int64_t n = v.size(0);
    if (n <= kSolvePanel) {
      b.copy_(at::linalg_solve_triangular(v.t(), b.contiguous(), false, false, false));
      return;
    }
    const std::int64_t k = half(n), rows = b.size(0);
    at::Tensor left = block(b, 0, rows, 0, k), right = block(b, 0, rows, k, n - k);
    solve(right, block(v, k, n - k, k, n - k));
    subtract_product(left, right, block(v, 0, k, k, n - k));
    solve(left, block(v, 0, k, 0, k));
  }

  /// The upper triangle of A ← A - X Xᵀ.
  void subtract_square(at::Tensor a, const at::Tensor& x) {
    const std::int64_t n = a.size(0), k = half(n);
    if (n <= kPanel) return subtract_product(a, x, x);
    const at::Tensor top = x.narrow(0, 0, k), bottom = x.narrow(0, k, n - k);
    subtract_product(block(a, 0, k, k, n - k), top, bottom);
    subtract_square(block(a, 0, k, 0, k), top);
    subtract_square(block(a, k, n - k, k, n - k), bottom);
  }

  /// A ← A - X Yᵀ, a share of the rows at a time so that a stop is noticed.
  void subtract_product(at::Tensor a, const at::Tensor& x, const at::Tensor& y) {
    const double flops_a_row = 2.0 * static_cast<double>(x.size(1)) * static_cast<double>(y.size(0));
    const std::int64_t share = std::max<std::int64_t>(64, static_cast<std::int64_t>(kFlopsAStep / flops_a_row));
    for (std::int64_t row = 0; row < a.size(0); row += share) {
      job_.checkpoint(done_, features_, "Factorizing");
      const std::int64_t rows = std::min(share, a.size(0) - row);
      a.narrow(0, row, rows).addmm_(x.narrow(0, row, rows), y.t(), 1.0, -1.0);
    }
  }

  const std::int64_t features_;
  const JobContext& job_;
  std::int64_t done_ = 0;  ///< columns of V
};

}  // namespace

HessianSum::HessianSum(std::int64_t features) : features_(features) {}

void HessianSum::add(const at::Tensor& x, std::int64_t sequences, const JobContext& job) {
  sequences_ += sequences;
  if (x.numel() == 0) return;
  if (!sum_.defined()) sum_ = at::zeros({features_, features_}, at::kFloat);
  const at::Tensor wide = x.to(at::kFloat).reshape({-1, features_});
  const std::int64_t tokens = wide.size(0);
  tokens_ += tokens;
  const double flops_a_column = 2.0 * static_cast<double>(tokens) * static_cast<double>(features_);
  const std::int64_t panel =
      std::clamp<std::int64_t>(static_cast<std::int64_t>(kFlopsAStep / flops_a_column), 16, kSumPanel);
  for (std::int64_t begin = 0; begin < features_; begin += panel) {
    job.checkpoint(begin, features_, "Accumulating the Hessian");
    const std::int64_t rows = std::min(panel, features_ - begin), columns = features_ - begin;
    sum_.narrow(0, begin, rows)
        .narrow(1, begin, columns)
        .addmm_(wide.narrow(1, begin, rows).t(), wide.narrow(1, begin, columns));
  }
}

at::Tensor HessianSum::matrix(const std::string& name) const {
  if (!sum_.defined()) return at::zeros({features_, features_}, at::kFloat);
  at::Tensor h = sum_ * (2.0 / static_cast<double>(std::max<std::int64_t>(1, sequences_)));
  for (std::int64_t begin = 0; begin < features_; begin += kPanel) {
    const std::int64_t rows = std::min(kPanel, features_ - begin), behind = features_ - begin - rows;
    at::Tensor corner = block(h, begin, rows, begin, rows);
    corner.copy_(corner.triu() + corner.triu(1).t());
    block(h, begin + rows, behind, begin, rows).copy_(block(h, begin, rows, begin + rows, behind).t());
  }
  // No element is larger than both diagonal elements that it belongs to.
  const at::Tensor finite = at::isfinite(h.diagonal());
  if (!finite.all().item<bool>()) {
    const std::int64_t column = at::argmin(finite.to(at::kByte)).item<std::int64_t>();
    throw Error(ErrorCode::InvalidArgument, "The inputs of '" + name + "' hold NaN or infinity in column " +
                                                std::to_string(column) +
                                                "; this model cannot be calibrated on this text.");
  }
  return h;
}

bool factorize_upper(at::Tensor& h, const JobContext& job) { return UpperFactorization(h.size(0), job).factorize(h); }

DampedFactor damped_factor(const at::Tensor& hessian, double damping, const at::Tensor& ones, const JobContext& job) {
  const double mean = at::diagonal(hessian).mean().item<double>();
  const double last = std::max(kLastDamping, damping) * (1.0 + 1e-9);
  DampedFactor result;
  for (double tried = damping; tried <= last; tried = std::max(10.0 * tried, kFirstRetry)) {
    ++result.attempts;
    result.damping = tried;
    result.added = tried * mean;
    at::Tensor damped = at::empty(hessian.sizes(), at::kFloat).copy_(hessian);
    damped.diagonal().add_(result.added);
    if (ones.defined()) damped.diagonal().masked_fill_(ones, 1.0);
    if (factorize_upper(damped, job)) {
      result.upper = damped;
      break;
    }
  }
  char text[160];
  if (!result.upper.defined()) {
    std::snprintf(text, sizeof text, "The Hessian is not positive definite even with a damping of %g.", result.damping);
    result.notes.emplace_back(text);
  } else if (result.attempts > 1) {
    std::snprintf(text, sizeof text, "The Hessian was not positive definite with a damping of %g; %g was used.",
                  damping, result.damping);
    result.notes.emplace_back(text);
  }
  return result;
}

double proxy_loss(const at::Tensor& difference, const at::Tensor& hessian) {
  const at::Tensor d = difference.to(at::kFloat);
  return 0.5 * (at::mm(d, hessian) * d).sum(at::kDouble).item<double>();
}

}  // namespace qs
