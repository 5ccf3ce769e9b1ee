#include "backend/methods/linear_statistics.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>

namespace qs {
namespace {

void compare(const std::string& suffix, const at::Tensor& reference, const at::Tensor& other,
             std::map<std::string, double>& numbers) {
  const double error = (reference - other).square().sum().item<double>();
  const double signal = reference.square().sum().item<double>();
  numbers["sqnr_" + suffix] =
      error == 0.0 ? std::numeric_limits<double>::infinity() : 10.0 * std::log10(signal / error);
  numbers["mse_" + suffix] = error / static_cast<double>(reference.numel());
}

void describe(const std::string& suffix, const at::Tensor& x, std::map<std::string, double>& numbers) {
  const double count = static_cast<double>(x.numel());
  const double mean = x.mean().item<double>();
  const at::Tensor centred = x - mean;
  const double second = centred.square().sum().item<double>();
  const double fourth = centred.square().square().sum().item<double>();
  numbers["mean_" + suffix] = mean;
  numbers["std_" + suffix] = std::sqrt(second / (count - 1.0));
  numbers["kurt_" + suffix] = (fourth / count) / std::pow(second / count, 2.0) - 3.0;
  numbers["max_" + suffix] = x.max().item<double>();
  numbers["min_" + suffix] = x.min().item<double>();
}

}  // namespace

std::map<std::string, double> weight_statistics(const at::Tensor& w, const at::Tensor& w_quantized) {
  std::map<std::string, double> numbers;
  const at::Tensor weight = w.to(at::kDouble);
  compare("w", weight, w_quantized.to(at::kDouble), numbers);
  describe("w", weight, numbers);
  return numbers;
}

std::map<std::string, double> input_statistics(const at::Tensor& x, const at::Tensor& x_quantized) {
  std::map<std::string, double> numbers;
  const at::Tensor input = x.to(at::kDouble);
  compare("x", input, x_quantized.to(at::kDouble), numbers);
  describe("x", input, numbers);
  return numbers;
}

std::map<std::string, double> output_statistics(const at::Tensor& x, const at::Tensor& x_quantized, const at::Tensor& w,
                                                const at::Tensor& w_quantized, const at::Tensor& bias) {
  at::Tensor reference = at::matmul(x.to(at::kDouble), w.to(at::kDouble).t());
  at::Tensor output = at::matmul(x_quantized.to(at::kDouble), w_quantized.to(at::kDouble).t());
  if (bias.defined()) {
    reference = reference + bias.to(at::kDouble);
    output = output + bias.to(at::kDouble);
  }
  std::map<std::string, double> numbers;
  compare("o", reference, output, numbers);
  return numbers;
}

std::map<std::string, double> linear_statistics(const at::Tensor& x, const at::Tensor& x_quantized, const at::Tensor& w,
                                                const at::Tensor& w_quantized, const at::Tensor& bias) {
  std::map<std::string, double> numbers = input_statistics(x, x_quantized);
  numbers.merge(weight_statistics(w, w_quantized));
  numbers.merge(output_statistics(x, x_quantized, w, w_quantized, bias));
  return numbers;
}

}  // namespace qs
