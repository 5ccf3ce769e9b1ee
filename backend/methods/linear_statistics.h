#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace qs {

/// The 16 numbers of one linear layer (weights specification 10.1): sqnr_x, sqnr_w, sqnr_o in dB, mse_*, and mean, std
/// (n - 1), kurt (excess), max, min of x and w. Accumulated in double; equal tensors give an infinite SQNR.
/// @param x, x_quantized  [tokens, in_features]; w, w_quantized  [out_features, in_features]; bias may be undefined
std::map<std::string, double> linear_statistics(const at::Tensor& x, const at::Tensor& x_quantized, const at::Tensor& w,
                                                const at::Tensor& w_quantized, const at::Tensor& bias = {});

}  // namespace qs
