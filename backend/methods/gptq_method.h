#pragma once

#include <optional>

#include "backend/method.h"
#include "backend/methods/gptq.h"
#include "backend/methods/linear_quantizer.h"

namespace qs {

/// GPTQ as the engine runs it. Artifact: codes (uint8, packed runs of `bits`, original column order), scale (scale_type
/// [out_features, groups]), zero_point (uint8 [out_features, groups]), g_idx (int32 [in_features]), shape (int64:
/// out_features, in_features, bits, group_size, symmetric), and order (int64 [in_features]) when groups follow the
/// processing order.
class GptqQuantizer final : public LinearQuantizer {
 public:
  explicit GptqQuantizer(GptqOptions options) : options_(options) {}
  LinearArtifact quantize(const LinearTask& task, const JobContext& job) const override;
  std::shared_ptr<const LinearOp> make_linear(const LinearArtifact& artifact, const at::Tensor& bias,
                                              WeightExecution execution, at::ScalarType compute_type) const override;
  const GptqOptions& options() const { return options_; }

 private:
  GptqOptions options_;
};

/// Weight method `gptq` (weights specification section 5).
class GptqMethod final : public WeightMethod {
 public:
  /// @throws Error InvalidArgument for settings that contradict each other
  explicit GptqMethod(const ParamSet& params);
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// With H = 1: no inputs are known, so this is rounding to nearest on the method's grid.
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;
  /// act_order=auto is decided by the architecture.
  GptqOptions options_for(const ArchitectureSpec& spec) const;

 private:
  GptqOptions options_;
  std::optional<bool> act_order_;  ///< empty: by architecture
  bool true_sequential_ = false;
  std::string setup_;
};

/// RMS norms and a gated MLP: a few input channels dominate H there, and act_order matters (specification 5.7).
bool is_llama_like(const ArchitectureSpec& spec);

}  // namespace qs
