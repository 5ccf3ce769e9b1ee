#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/types/job.h"
#include "backend/types/linear_grid.h"
#include "backend/types/tensor_view.h"

namespace qs {

class CaptureReader;
class Variant;
struct DecoderWeights;

/// One linear of a variant beside the weight that its method rounded; plain data.
struct ComparedLinear {
  std::string name;  ///< linear_name
  std::int64_t layer = 0;
  TensorView original, quantized;  ///< f32 [out_features, in_features]
  double effective_bits = 0.0;     ///< as allocated where codes are kept, else by the method's formula
  /// Mean square of each input channel of `original`, [in_features]; empty where the capture does not tell.
  std::vector<float> input_second_moment;
};

/// What a variant's weights were rounded from, calibrated as its own: unrounded_weights with the maxima of a capture.
/// @param capture  may be null for methods that need no maxima
/// @throws Error InvalidArgument for a variant without a weight setup or a method that smooths without a capture
std::shared_ptr<const DecoderWeights> unrounded_weights(const Variant& variant, CaptureReader* capture,
                                                        const JobContext& job);

/// The linears of a variant with quantized weights, one after another. What they are compared with is what the method
/// rounds: after smoothing, before quantization (weights specification 10.1).
class WeightComparison {
 public:
  /// @param capture  maxima for methods that smooth, and second moments; may be null
  /// @throws Error InvalidArgument for a variant without a weight setup or a method that smooths without a capture
  WeightComparison(std::shared_ptr<const Variant> variant, CaptureReader* capture, const JobContext& job);
  ~WeightComparison();
  std::vector<std::string> names() const;  ///< of all linears, in the order of the model
  /// @throws Error NotFound when there is no such linear
  ComparedLinear compare(const std::string& name) const;
  LinearGrid grid(const std::string& name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace qs
