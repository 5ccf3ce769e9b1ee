#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <string>

namespace qs {

// The 16 numbers of one linear layer (weights specification 10.1), accumulated in double. Equal tensors give an
// infinite SQNR, a constant one a kurtosis of NaN.

/// sqnr_w in dB, mse_w, and mean_w, std_w (n - 1), kurt_w (excess), max_w, min_w.
/// @param w, w_quantized  [out_features, in_features]
std::map<std::string, double> weight_statistics(const at::Tensor& w, const at::Tensor& w_quantized);
/// The same of the input. @param x, x_quantized  [tokens, in_features]
std::map<std::string, double> input_statistics(const at::Tensor& x, const at::Tensor& x_quantized);
/// sqnr_o and mse_o of x_quantized w_quantizedᵀ + bias against x wᵀ + bias. @param bias  may be undefined
std::map<std::string, double> output_statistics(const at::Tensor& x, const at::Tensor& x_quantized, const at::Tensor& w,
                                                const at::Tensor& w_quantized, const at::Tensor& bias = {});

/// All of them.
std::map<std::string, double> linear_statistics(const at::Tensor& x, const at::Tensor& x_quantized, const at::Tensor& w,
                                                const at::Tensor& w_quantized, const at::Tensor& bias = {});

}  // namespace qs
