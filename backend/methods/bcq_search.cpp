#include "backend/methods/bcq_search.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>
#include <functional>

namespace qs {
namespace {

constexpr int kMostBits = 8;
constexpr double kSingular = 1e-9;  ///< of the diagonal; pivots of such small integer matrices are far above or 0

/// sums[m] = sum over c of values[c] * (-1)^(number of bits in m & c), in place.
void signed_totals(std::vector<double>& values) {
  for (std::size_t half = 1; half < values.size(); half *= 2) {
    for (std::size_t begin = 0; begin < values.size(); begin += 2 * half) {
      for (std::size_t i = begin; i < begin + half; ++i) {
        const double low = values[i], high = values[i + half];
        values[i] = low + high;
        values[i + half] = low - high;
      }
    }
  }
}

/// Mean of |x|, in four chains of f64.
float mean_magnitude(const float* x, std::int64_t count) {
  double totals[4] = {};
  std::int64_t k = 0;
  for (; k + 4 <= count; k += 4)
    for (int chain = 0; chain < 4; ++chain) totals[chain] += static_cast<double>(std::fabs(x[k + chain]));
  for (; k < count; ++k) totals[0] += static_cast<double>(std::fabs(x[k]));
  return static_cast<float>((totals[0] + totals[1] + totals[2] + totals[3]) / static_cast<double>(count));
}

/// Cholesky; false when a pivot vanishes.
bool solve_definite(const double* matrix, int n, double* x) {
  double lower[kMostBits][kMostBits];
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j <= i; ++j) {
      double sum = matrix[i * n + j];
      for (int k = 0; k < j; ++k) sum -= lower[i][k] * lower[j][k];
      if (i == j && sum <= kSingular * matrix[0]) return false;
      lower[i][j] = i == j ? std::sqrt(sum) : sum / lower[j][j];
    }
  }
  for (int i = 0; i < n; ++i) {
    for (int k = 0; k < i; ++k) x[i] -= lower[i][k] * x[k];
    x[i] /= lower[i][i];
  }
  for (int i = n - 1; i >= 0; --i) {
    for (int k = i + 1; k < n; ++k) x[i] -= lower[k][i] * x[k];
    x[i] /= lower[i][i];
  }
  return true;
}

}  // namespace

void solve_least_norm(const double* matrix, int n, double* x) {
  double right[kMostBits];
  std::copy(x, x + n, right);
  if (solve_definite(matrix, n, x)) return;
  using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor, kMostBits, kMostBits>;
  const Eigen::SelfAdjointEigenSolver<Matrix> eigen(Matrix(Eigen::Map<const Eigen::MatrixXd>(matrix, n, n)));
  const double limit = kSingular * std::max(eigen.eigenvalues().maxCoeff(), 0.0);
  std::fill(x, x + n, 0.0);
  for (int k = 0; k < n; ++k) {
    if (eigen.eigenvalues()[k] <= limit) continue;
    const auto vector = eigen.eigenvectors().col(k);
    double along = 0.0;
    for (int i = 0; i < n; ++i) along += vector[i] * right[i];
    for (int i = 0; i < n; ++i) x[i] += vector[i] * along / eigen.eigenvalues()[k];
  }
}

BcqGroupSearch::BcqGroupSearch(const BcqOptions& options, std::int64_t size)
    : bits_(options.bits), rounds_(options.bits == 1 ? 0 : options.rounds), assign_(options.assign), size_(size) {
  const auto count = static_cast<std::size_t>(size), patterns = std::size_t{1} << bits_;
  residual_.resize(count);
  index_.resize(count);
  next_.resize(count);
  counts_.resize(patterns), sums_.resize(patterns);
  level_.resize(patterns), merged_level_.resize(patterns);
  pattern_.resize(patterns), merged_pattern_.resize(patterns);
}

void BcqGroupSearch::run(const float* w, std::uint8_t* codes, float* alpha) {
  if (std::all_of(w, w + size_, [](float value) { return value == 0.0F; })) {
    std::fill(codes, codes + size_, static_cast<std::uint8_t>((1 << bits_) - 1));
    std::fill(alpha, alpha + bits_, 0.0F);
    return;
  }
  start_greedily(w, codes, alpha);
  for (int round = 0; round < rounds_; ++round) {
    fit(w, codes, alpha);
    if (assign_ == BcqAssign::Nearest) {
      sort_sums(alpha);
      assign_nearest(w, next_.data());
    } else {
      assign_greedily(w, alpha, next_.data());
    }
    if (std::equal(codes, codes + size_, next_.begin())) return;
    std::copy(next_.begin(), next_.end(), codes);
  }
}

/// Signs gather in 32-bit words first, so that the loops become vector code.
void BcqGroupSearch::start_greedily(const float* w, std::uint8_t* codes, float* alpha) {
  std::copy(w, w + size_, residual_.begin());
  std::fill(index_.begin(), index_.end(), 0);
  float* const rest = residual_.data();
  std::int32_t* const signs = index_.data();
  for (int plane = 0; plane < bits_; ++plane) {
    const float mean = mean_magnitude(rest, size_);
    const std::int32_t bit = 1 << plane;
    alpha[plane] = mean;
    for (std::int64_t k = 0; k < size_; ++k) {
      signs[k] |= rest[k] >= 0.0F ? bit : 0;
      rest[k] -= rest[k] >= 0.0F ? mean : -mean;
    }
  }
  for (std::int64_t k = 0; k < size_; ++k) codes[k] = static_cast<std::uint8_t>(signs[k]);
}

/// alpha = argmin ||w - B alpha||, absolute and in descending order. Both sides of the normal equations are signed
/// totals over the codes: the product of planes i and j has the sign (-1)^(bit i) * (-1)^(bit j).
void BcqGroupSearch::fit(const float* w, const std::uint8_t* codes, float* alpha) {
  std::fill(counts_.begin(), counts_.end(), 0.0);
  std::fill(sums_.begin(), sums_.end(), 0.0);
  for (std::int64_t k = 0; k < size_; ++k) {
    counts_[codes[k]] += 1.0;
    sums_[codes[k]] += static_cast<double>(w[k]);
  }
  signed_totals(counts_);
  signed_totals(sums_);
  double gram[kMostBits * kMostBits], solution[kMostBits];
  for (int i = 0; i < bits_; ++i) {
    solution[i] = -sums_[std::size_t{1} << i];  // +1 where the bit is set
    for (int j = 0; j < bits_; ++j) gram[i * bits_ + j] = counts_[(std::size_t{1} << i) ^ (std::size_t{1} << j)];
  }
  solve_least_norm(gram, bits_, solution);
  for (int i = 0; i < bits_; ++i) alpha[i] = static_cast<float>(std::fabs(solution[i]));
  std::sort(alpha, alpha + bits_, std::greater<>());
}

/// All sums of +-alpha in ascending order: each plane merges the sums so far minus and plus its alpha.
void BcqGroupSearch::sort_sums(const float* alpha) {
  level_[0] = 0.0F;
  pattern_[0] = 0;
  std::size_t count = 1;
  for (int plane = 0; plane < bits_; ++plane, count *= 2) {
    std::size_t minus = 0, plus = 0;
    for (std::size_t k = 0; k < 2 * count; ++k) {
      const bool lower =
          plus == count || (minus < count && level_[minus] - alpha[plane] <= level_[plus] + alpha[plane]);
      merged_level_[k] = lower ? level_[minus] - alpha[plane] : level_[plus] + alpha[plane];
      merged_pattern_[k] =
          static_cast<std::uint8_t>(lower ? pattern_[minus] : pattern_[plus] | 1U << static_cast<unsigned>(plane));
      ++(lower ? minus : plus);
    }
    level_.swap(merged_level_);
    pattern_.swap(merged_pattern_);
  }
}

/// The number of midpoints that are not above a weight; a weight on a midpoint goes up.
void BcqGroupSearch::assign_nearest(const float* w, std::uint8_t* codes) {
  const std::size_t middles = level_.size() - 1;
  float* const middle = merged_level_.data();
  for (std::size_t j = 0; j < middles; ++j) middle[j] = 0.5F * (level_[j] + level_[j + 1]);
  std::int32_t* const index = index_.data();
  if (bits_ <= 4) {
    std::fill(index_.begin(), index_.end(), 0);
    for (std::size_t j = 0; j < middles; ++j) {
      const float border = middle[j];
      for (std::int64_t k = 0; k < size_; ++k) index[k] += w[k] >= border ? 1 : 0;
    }
  } else {
    for (std::int64_t k = 0; k < size_; ++k)
      index[k] = static_cast<std::int32_t>(std::upper_bound(middle, middle + middles, w[k]) - middle);
  }
  for (std::int64_t k = 0; k < size_; ++k) codes[k] = pattern_[static_cast<std::size_t>(index[k])];
}

void BcqGroupSearch::assign_greedily(const float* w, const float* alpha, std::uint8_t* codes) {
  for (std::int64_t k = 0; k < size_; ++k) {
    float rest = w[k];
    unsigned code = 0;
    for (int plane = 0; plane < bits_; ++plane) {
      const bool plus = rest >= 0.0F;
      code |= plus ? 1U << static_cast<unsigned>(plane) : 0U;
      rest -= plus ? alpha[plane] : -alpha[plane];
    }
    codes[k] = static_cast<std::uint8_t>(code);
  }
}

}  // namespace qs
