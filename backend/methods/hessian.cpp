#include "backend/methods/hessian.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "backend/types/error.h"

namespace qs {
namespace {

constexpr double kFlopsAStep = 8e9;  // between two looks at the stop flag
constexpr std::int64_t kPanel = 256;
constexpr std::int64_t kWidePanel = 1024;  // columns of one product
constexpr double kFirstRetry = 0.01;
constexpr double kLastDamping = 1.0;

/// A reversed in both axes.
at::Tensor reversed(const at::Tensor& a) { return at::flip(a, {0, 1}).contiguous(); }

/// Lower Cholesky factor in place, panel by panel; what lies above the diagonal means nothing.
bool factorize(at::Tensor& a, const JobContext& job) {
  const std::int64_t n = a.size(0);
  for (std::int64_t k = 0; k < n; k += kPanel) {
    const std::int64_t width = std::min(kPanel, n - k), below = n - k - width;
    at::Tensor diagonal = a.narrow(0, k, width).narrow(1, k, width);
    const auto [factor, info] = at::linalg_cholesky_ex(diagonal.contiguous(), false, false);
    if (info.item<int>() != 0 || !at::isfinite(factor).all().item<bool>()) return false;
    diagonal.copy_(factor);
    if (below == 0) break;
    at::Tensor panel = a.narrow(0, k + width, below).narrow(1, k, width);
    panel.copy_(at::linalg_solve_triangular(factor.t(), panel.contiguous(), true, false, false));
    const at::Tensor solved = panel.contiguous();
    for (std::int64_t j = 0; j < below; j += kWidePanel) {
      job.checkpoint(k, n, "Factorizing");
      const std::int64_t columns = std::min(kWidePanel, below - j);
      a.narrow(0, k + width + j, below - j)
          .narrow(1, k + width + j, columns)
          .addmm_(solved.narrow(0, j, below - j), solved.narrow(0, j, columns).t(), 1.0, -1.0);
    }
  }
  return true;
}

/// Inverse of the lower triangular L, a block of rows at a time: M_ii = L_ii⁻¹, M_i,< = -M_ii (L_i,< M_<,<).
at::Tensor inverse_of_lower(const at::Tensor& l, const JobContext& job) {
  const std::int64_t n = l.size(0);
  at::Tensor inverse = at::zeros_like(l);
  for (std::int64_t i = 0; i < n; i += kPanel) {
    const std::int64_t rows = std::min(kPanel, n - i);
    const at::Tensor block = l.narrow(0, i, rows).narrow(1, i, rows);
    const at::Tensor own =
        at::linalg_solve_triangular(block.tril().contiguous(), at::eye(rows, l.options()), false, true, false);
    inverse.narrow(0, i, rows).narrow(1, i, rows).copy_(own);
    for (std::int64_t c = 0; c < i; c += kWidePanel) {
      job.checkpoint(i, n, "Inverting");
      const std::int64_t columns = std::min(kWidePanel, i - c);
      const at::Tensor product =
          at::mm(l.narrow(0, i, rows).narrow(1, c, i - c), inverse.narrow(0, c, i - c).narrow(1, c, columns));
      inverse.narrow(0, i, rows).narrow(1, c, columns).copy_(at::mm(own, product).neg_());
    }
  }
  return inverse;
}

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
      std::clamp<std::int64_t>(static_cast<std::int64_t>(kFlopsAStep / flops_a_column), 16, 1024);
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
  const at::Tensor upper = sum_.triu();
  at::Tensor h = (upper + sum_.triu(1).t()).mul_(2.0 / static_cast<double>(std::max<std::int64_t>(1, sequences_)));
  const at::Tensor finite = at::isfinite(h).all(1);
  if (!finite.all().item<bool>()) {
    const std::int64_t column = at::argmin(finite.to(at::kByte)).item<std::int64_t>();
    throw Error(ErrorCode::InvalidArgument, "The inputs of '" + name + "' hold NaN or infinity in column " +
                                                std::to_string(column) +
                                                "; this model cannot be calibrated on this text.");
  }
  return h;
}

std::optional<at::Tensor> inverse_upper_factor(const at::Tensor& hessian, const JobContext& job) {
  at::Tensor work = reversed(hessian.to(at::kFloat));
  if (!factorize(work, job.part(0.0, 0.5))) return std::nullopt;
  return reversed(inverse_of_lower(work, job.part(0.5, 1.0)));
}

DampedFactor damped_inverse_factor(const at::Tensor& hessian, double damping, const at::Tensor& ones,
                                   const JobContext& job) {
  const double mean = at::diagonal(hessian).mean().item<double>();
  const double last = std::max(kLastDamping, damping) * (1.0 + 1e-9);
  DampedFactor result;
  for (double tried = damping; tried <= last; tried = std::max(10.0 * tried, kFirstRetry)) {
    ++result.attempts;
    result.damping = tried;
    result.added = tried * mean;
    at::Tensor damped = hessian.clone();
    damped.diagonal().add_(result.added);
    if (ones.defined()) damped.diagonal().masked_fill_(ones, 1.0);
    if (auto upper = inverse_upper_factor(damped, job)) {
      result.upper = std::move(*upper);
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
