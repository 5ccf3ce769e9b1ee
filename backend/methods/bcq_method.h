#pragma once

#include <memory>

#include "backend/method.h"
#include "backend/methods/bcq.h"
#include "kernels/lut_gemm.h"

namespace qs {

/// Weight method `bcq` (weights specification section 7). Data-free. Packed execution runs on LUT-GEMM.
class BcqMethod final : public WeightMethod {
 public:
  /// @throws Error InvalidArgument for a group size that is neither -1 nor a multiple of 8, or a uniform grid of 1 bit
  explicit BcqMethod(const ParamSet& params);
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// `scale` is alpha [out_features, groups, bits], `group_min` the offset [out_features, groups], undefined without.
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;

  const BcqOptions& options() const { return options_; }
  /// Codes and alphas of one weight, searched or from a uniform grid.
  BcqWeight quantize(const at::Tensor& weight, const std::string& name, const JobContext& job) const;
  /// The layer of these codes: dequantized, or computing from planes.
  std::shared_ptr<const LinearOp> make_linear(const BcqWeight& weight, const at::Tensor& bias,
                                              WeightExecution execution, at::ScalarType compute_type) const;

 private:
  std::vector<std::string> notes(std::int64_t in_features) const;

  BcqOptions options_;
  bool from_rtn_ = false;
  kernels::LutArithmetic arithmetic_ = kernels::LutArithmetic::Int16;
};

}  // namespace qs
