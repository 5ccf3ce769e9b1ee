#pragma once

#include <memory>
#include <optional>
#include <string>

#include "backend/model/model.h"
#include "backend/types/eval_result.h"
#include "backend/types/setup.h"
#include "backend/types/weight_run.h"

namespace qs {

class KvPlan;
struct KvArtifact;
struct Calibration;
struct WeightContext;

/// A model with at most one weight setup and at most one KV setup. Immutable and shared.
class Variant {
 public:
  Variant(std::shared_ptr<const Model> model, std::shared_ptr<const DecoderWeights> weights,
          std::optional<Setup> weight_setup, std::shared_ptr<const KvPlan> kv, std::optional<Setup> kv_setup);
  ~Variant();

  const Model& model() const { return *model_; }
  const std::shared_ptr<const Model>& shared_model() const { return model_; }
  const DecoderWeights& weights() const { return *weights_; }
  const KvPlan* kv() const { return kv_.get(); }  ///< null: full precision
  const std::optional<Setup>& weight_setup() const { return weight_setup_; }
  const std::optional<Setup>& kv_setup() const { return kv_setup_; }
  VariantLabel label() const;
  std::int64_t weight_bytes() const;  ///< of all weights, mapped from the file or allocated
  /// Effective bits a weight of the block linears: allocations where codes are kept, the formula of the method where
  /// the weights are simulated, the stored type without a setup.
  double weight_bits() const;

 private:
  std::shared_ptr<const Model> model_;
  std::shared_ptr<const DecoderWeights> weights_;
  std::optional<Setup> weight_setup_;
  std::shared_ptr<const KvPlan> kv_;
  std::optional<Setup> kv_setup_;
};

/// Builds a variant; an empty optional leaves that side in full precision.
/// @param context      what the weight method needs (MethodInfo::needs_calibration) and how it is computed
/// @param kv_artifact  needed by KV methods that say so; may be null otherwise
/// @throws Error InvalidArgument when a setup does not fit the model (naming the nearest that fits) or calibration is
///         missing or was made on another model
std::shared_ptr<const Variant> make_variant(std::shared_ptr<const Model> model, const std::optional<Setup>& weights,
                                            const std::optional<Setup>& kv, const WeightContext& context,
                                            const JobContext& job, const KvArtifact* kv_artifact = nullptr);
/// The same with a calibration by maxima only, which may be null.
std::shared_ptr<const Variant> make_variant(std::shared_ptr<const Model> model, const std::optional<Setup>& weights,
                                            const std::optional<Setup>& kv, const Calibration* calibration,
                                            WeightExecution execution, const JobContext& job,
                                            const KvArtifact* kv_artifact = nullptr);

}  // namespace qs
