#pragma once

#include <set>
#include <string>
#include <vector>

#include "backend/method.h"
#include "backend/methods/lkd.h"
#include "backend/methods/zeroquant.h"

namespace qs {

/// ZeroQuant (arXiv:2206.01861; weights specification section 9): group-wise weights, token-wise activations, widths by
/// module, and optionally layer-by-layer distillation.
class ZeroQuant final : public WeightMethod {
 public:
  /// @throws Error InvalidArgument for widths that are not there, contradicting groups, or a list of layers that cannot
  ///         be read
  explicit ZeroQuant(const ParamSet& params);
  /// With lkd, each chosen block is distilled from the teacher's hidden states, which run through the model's own
  /// weights; a checkpoint folder keeps every distilled block.
  /// @throws Error InvalidArgument with lkd and no windows, or for a layer that the model has not
  DecoderWeights apply(const Model& model, const WeightContext& context, const JobContext& job) const override;
  /// @param name  tells attention from MLP: names with "attn", "attention" or the like have bits_attn
  QuantizedTensor quantize_weight(const at::Tensor& weight, const std::string& name) const override;
  /// Of an MLP linear, where widths differ: a shape does not tell. Models have DecoderWeights::measured_bits.
  double effective_bits(std::int64_t out_features, std::int64_t in_features) const override;

  const ZeroQuantWeight& weight_quantizer(LinearKind kind) const;
  const TokenQuantization& tokens() const { return tokens_; }
  const LkdOptions& lkd() const { return lkd_; }
  bool distils() const { return distils_; }
  /// Blocks to distil, of those that the context quantizes. @throws Error InvalidArgument
  std::set<std::int64_t> distilled_layers(std::int64_t layers, const WeightContext& context) const;

 private:
  ZeroQuantWeight attention_, mlp_;
  TokenQuantization tokens_;
  bool distils_ = false;
  std::string lkd_layers_;
  LkdOptions lkd_;
  std::string setup_;
};

/// Blocks named by "all", "last", or layers and ranges between slashes ("0/3-5").
/// @param layers  of the model; 0: only the spelling is checked
/// @throws Error InvalidArgument naming the part that cannot be read or a layer that is not there
std::set<std::int64_t> parse_lkd_layers(const std::string& text, std::int64_t layers);

}  // namespace qs
