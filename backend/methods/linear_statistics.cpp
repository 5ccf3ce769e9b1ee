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

std::map<std::string, double> linear_statistics(const at::Tensor& x, const at::Tensor& x_quantized, const at::Tensor& w,
                                                const at::Tensor& w_quantized, const at::Tensor& bias) {
  const at::Tensor input = x.to(at::kDouble), seen = x_quantized.to(at::kDouble);
  const at::Tensor weight = w.to(at::kDouble), kept = w_quantized.to(at::kDouble);
  at::Tensor reference = at::matmul(input, weight.t()), output = at::matmul(seen, kept.t());
  if (bias.defined()) {
    reference = reference + bias.to(at::kDouble);
    output = output + bias.to(at::kDouble);
  }
  std::map<std::string, double> numbers;
  compare("x", input, seen, numbers);
  compare("w", weight, kept, numbers);
  compare("o", reference, output, numbers);
  describe("x", input, numbers);
  describe("w", weight, numbers);
  return numbers;
}

}  // namespace qs
