#pragma once

#include <cstdint>
#include <vector>

#include "backend/methods/bcq.h"

namespace qs {

/// The search of one group (weights specification 7.1), with its scratch memory; one a thread.
class BcqGroupSearch {
 public:
  /// @param size  weights of a group
  BcqGroupSearch(const BcqOptions& options, std::int64_t size);
  /// @param w  [size]; codes [size] and alpha [bits] are written
  void run(const float* w, std::uint8_t* codes, float* alpha);

 private:
  void start_greedily(const float* w, std::uint8_t* codes, float* alpha);
  void fit(const float* w, const std::uint8_t* codes, float* alpha);
  void sort_sums(const float* alpha);
  void assign_nearest(const float* w, std::uint8_t* codes);
  void assign_greedily(const float* w, const float* alpha, std::uint8_t* codes);

  const int bits_, rounds_;
  const BcqAssign assign_;
  const std::int64_t size_;
  std::vector<float> residual_;
  std::vector<std::int32_t> index_;
  std::vector<std::uint8_t> next_;
  std::vector<double> counts_, sums_;                   ///< [2^bits]: weights of each code, and how many they are
  std::vector<float> level_, merged_level_;             ///< [2^bits] ascending sums
  std::vector<std::uint8_t> pattern_, merged_pattern_;  ///< code of each
};

/// Least squares with a symmetric positive semidefinite n x n matrix, n <= 8; least norm where it is singular.
/// @param matrix  row-major [n][n]; @param x  the right side, replaced by the solution
void solve_least_norm(const double* matrix, int n, double* x);

}  // namespace qs
