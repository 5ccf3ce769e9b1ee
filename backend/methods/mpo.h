#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace qs {

/// Matrix product operator (DecoQuant, arXiv:2405.12591; KV specification 7.2): a chain of tensors whose product is the
/// matrix, found by singular value decompositions in f64 without truncation. Every bond is balanced: the tensors on
/// either side carry the square root of its spectrum. Components below 1e-6 of the largest singular value are 0.
struct Mpo {
  std::vector<at::Tensor>
      factors;  ///< f64 [left, rows_k, columns_k, right]; left of the first and right of the last: 1
  std::vector<at::Tensor> spectra;  ///< f64, of the bonds, descending
};
/// @param x  [I, J] with I and J the products of `rows` and `columns`, which are equally long
/// @throws Error InvalidArgument when they are not
Mpo mpo_decompose(const at::Tensor& x, const std::vector<std::int64_t>& rows, const std::vector<std::int64_t>& columns);
at::Tensor mpo_contract(const Mpo& mpo);  ///< f64 [I, J]

/// The two-factor closed form D1 by way of the Gram matrix: m = large * small with large = U S^(1/2), small = S^(1/2)
/// V^T. Components below 1e-6 of the largest singular value are 0 in both, so that shapes follow from shapes alone.
struct TwoFactors {
  at::Tensor large;     ///< f32 [rows, columns]
  at::Tensor small;     ///< f64 [columns, columns]
  at::Tensor singular;  ///< f64 [columns], descending; more than there are rows: 0
};
/// @param m  f32 [rows, columns]; cost: rows * columns^2 twice and an eigenproblem of columns x columns
TwoFactors two_factors(const at::Tensor& m);

/// Splits the small factor S^(1/2) V^T of two_factors over more tensors, each as a matrix [left, width * right] with
/// left * width = the columns before it: the factors 2 to n of the MPO whose first one is `large`.
/// @param widths  of the tensors; their product is the number of columns
std::vector<at::Tensor> split_small_factor(const TwoFactors& factors, const std::vector<std::int64_t>& widths);

}  // namespace qs
