#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/method.h"

namespace qs {

/// A method with the line that names it and all of its parameters.
struct NamedWeightMethod {
  std::shared_ptr<const WeightMethod> method;  ///< null: the weights stay as they are ("none")
  std::string line;
};

/// Methods one after another, as a plus sign says (weights specification 1.4). All but the last prepare the model and
/// may quantize the inputs of its linears; the last quantizes the weights that they leave, and the linears keep the
/// inputs' quantization.
class WeightChain final : public WeightMethod {
 public:
  explicit WeightChain(std::vector<NamedWeightMethod> stages) : stages_(std::move(stages)) {}
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  DecoderWeights prepare(const Model& model, const WeightContext& context, const JobContext& job) const override;
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;

 private:
  std::vector<NamedWeightMethod> stages_;
};

/// A method for each range of layers.
///
/// Runs of neighbouring layers with the same line are quantized together, from the first layer on, each behind the
/// result of the ones before: a method that looks at the inputs of a block sees them as the quantized blocks in front
/// leave them. A run keeps its checkpoint in a folder of its own, "layers-4-7".
class LayeredWeightMethod final : public WeightMethod {
 public:
  struct Entry {
    LayerRange range;  ///< the rest comes last
    NamedWeightMethod part;
  };
  explicit LayeredWeightMethod(std::vector<Entry> entries) : entries_(std::move(entries)) {}
  /// Sets measured_bits to the mean over the quantized linears that do not compute from codes.
  /// @throws Error InvalidArgument when a layer of the model has no entry, or an entry names a layer it does not have
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  DecoderWeights prepare(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// @param name  linear_name, which says the layer. @throws Error InvalidArgument when it says none
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  /// @throws Error InvalidArgument always: each layer has a width of its own
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;

 private:
  struct Run {
    LayerRange range;
    const NamedWeightMethod* part = nullptr;
  };
  const NamedWeightMethod* part_of(std::int64_t layer) const;
  std::vector<Run> runs(std::int64_t layers) const;

  std::vector<Entry> entries_;
};

}  // namespace qs
