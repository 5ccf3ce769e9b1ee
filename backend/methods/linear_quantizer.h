#pragma once

#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/methods/hessian.h"
#include "backend/model/decoder.h"
#include "backend/types/job.h"
#include "backend/types/weight_run.h"

namespace qs {

/// One linear layer of a block with what the calibration windows told of its input.
struct LinearTask {
  std::string name;                    ///< linear_name
  at::Tensor weight;                   ///< as stored [out_features, in_features]
  const HessianSum* inputs = nullptr;  ///< null when LinearQuantizer::wants_hessian is false
};

/// What a method made of one linear: everything that is needed to build it again, by names that the method documents.
/// A checkpoint holds it.
struct LinearArtifact {
  std::map<std::string, at::Tensor> tensors;
  LayerProgress progress;  ///< layer, layers and seconds are filled in by the engine
};

/// A method as the layer-by-layer engine (layerwise.h) runs it: one matrix at a time.
class LinearQuantizer {
 public:
  virtual ~LinearQuantizer() = default;
  virtual bool wants_hessian() const { return true; }
  /// Once, with the linears of the first block, before any is quantized: for parameters that are searched.
  virtual void tune(const std::vector<LinearTask>& /*first_block*/, const JobContext&) {}
  virtual LinearArtifact quantize(const LinearTask& task, const JobContext& job) const = 0;
  /// Takes over what `tune` had found when an artifact of the first block is read from a checkpoint.
  virtual void restore(const LinearArtifact& /*artifact*/) {}
  /// The linear layer of an artifact of this class, whatever its settings. @param bias  may be undefined
  /// @throws Error BadFormat naming the tensor that is missing or has another shape
  virtual std::shared_ptr<const LinearOp> make_linear(const LinearArtifact& artifact, const at::Tensor& bias,
                                                      WeightExecution execution, at::ScalarType compute_type) const = 0;
};

/// A tensor of an artifact. @param type  empty: any
/// @throws Error BadFormat when it is not there or has another type or number of dimensions
const at::Tensor& artifact_tensor(const LinearArtifact& artifact, const std::string& name,
                                  std::optional<at::ScalarType> type, std::int64_t dims);
/// @throws Error BadFormat always: tensor `name` cannot be what was written
[[noreturn]] void throw_broken_artifact(const LinearArtifact& artifact, const std::string& name);

}  // namespace qs
