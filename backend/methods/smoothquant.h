#pragma once

#include "backend/method.h"
#include "backend/methods/pair_error.h"
#include "backend/methods/quantize_decoder.h"
#include "backend/methods/smoothing.h"

namespace qs {

/// SmoothQuant (arXiv:2211.10438; weights specification section 4): migrates the difficulty of activation outliers into
/// the weights by an exact rescaling, then quantizes both. Levels of section 4.4: O1 has one range a weight and one a
/// token, O2 one a weight and one an input, O3 the same with the ranges of inputs fixed by the calibration.
///
/// In front of a plus sign it smooths and quantizes inputs only; the method behind it quantizes the weights.
class SmoothQuant final : public WeightMethod {
 public:
  enum class Place { Alone, InFront };

  /// @throws Error InvalidArgument for widths of 9 to 15 bits, static ranges (O3) with the affine quantizer, and
  ///         settings that contradict each other or have no effect at this place
  explicit SmoothQuant(const ParamSet& params, Place place = Place::Alone);
  /// @throws Error InvalidArgument when the context has no calibration, one that does not fit the model, or one from a
  ///         capture where a sample of inputs is needed
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// The smoothed weights.
  DecoderWeights prepare(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// The weight quantizer alone, without smoothing, which needs the model.
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;

  const SmoothingOptions& smoothing() const { return smoothing_; }
  /// How a norm's pair is quantized: what layer errors are measured with.
  PairQuantizers pair_quantizers() const;

 private:
  void check_levels() const;
  DecoderWeights smoothed(const Model& model, const WeightContext& context, std::vector<double>* absmax,
                          const JobContext& job) const;
  AttentionQuantization attention_for(const Model& model, const Calibration& calibration) const;
  /// The alpha of 0, 0.05 ... 1 with the least error of the pair's outputs; the first of equal ones.
  double search_alpha(const PairView& view, const WeightContext& context, const JobContext& job) const;

  SmoothingOptions smoothing_;
  WeightQuantizer quantizer_;
  ActivationQuantization activations_;
  ActivationScope scope_ = ActivationScope::All;
  AttentionQuantization attention_;
  bool static_ranges_ = false;
  bool searches_alpha_ = false;
  int search_bits_ = 8;  ///< of weights, where the search of alpha is not told by quantizer_
};

}  // namespace qs
