#pragma once

#include "backend/method.h"
#include "backend/methods/linear_quantizer.h"
#include "backend/methods/spqr.h"

namespace qs {

/// SpQR as the engine runs it. Artifact: codes (uint8, packed runs of `bits`, processing order), order (int64
/// [in_features]), outlier_rows, outlier_columns (int32), outlier_values (f16), outlier_threshold (f64 [1]), shape
/// (int64: out_features, in_features, bits, group_size, qq_scale_bits, qq_zero_bits, qq_group_size, symmetric,
/// round_zero), and for scale and zero either NAME (f16 or, rounded zeros, f32 [groups, out_features]) or NAME_codes
/// (uint8, packed runs), NAME_qq_scale, NAME_qq_zero (f16 [groups, out_features / qq_group_size]).
class SpqrQuantizer final : public LinearQuantizer {
 public:
  /// @param target_bits  above 0: the threshold is searched on the first block
  SpqrQuantizer(SpqrOptions options, double target_bits) : options_(options), target_bits_(target_bits) {}
  void tune(const std::vector<LinearTask>& first_block, const JobContext& job) override;
  void restore(const LinearArtifact& artifact) override;
  LinearArtifact quantize(const LinearTask& task, const JobContext& job) const override;
  std::shared_ptr<const LinearOp> make_linear(const LinearArtifact& artifact, const at::Tensor& bias,
                                              WeightExecution execution, at::ScalarType compute_type) const override;
  const SpqrOptions& options() const { return options_; }

 private:
  SpqrOptions options_;
  double target_bits_ = 0.0;
};

/// Weight method `spqr` (weights specification section 6).
class SpqrMethod final : public WeightMethod {
 public:
  /// @throws Error InvalidArgument for settings that contradict each other
  explicit SpqrMethod(const ParamSet& params);
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// With H = 1: no inputs are known.
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  /// Q3 without outliers, whose share only a run can tell.
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;
  const SpqrOptions& options() const { return options_; }

 private:
  SpqrOptions options_;
  double target_bits_ = 0.0;
  bool true_sequential_ = false;
  std::string setup_;
};

}  // namespace qs
