#pragma once

#include <functional>

#include "backend/method.h"
#include "backend/methods/weight_codes.h"

namespace qs {

/// Which linears of a block have their inputs quantized.
enum class ActivationScope {
  All,     ///< every linear of the block
  NormFed  ///< q, k, v, gate and up, whose inputs come straight from a norm
};
ActivationScope parse_activation_scope(const std::string& id);  ///< "all", "norm_fed"
bool in_scope(ActivationScope scope, LinearKind kind);

/// Quantizes every linear of the blocks of `weights` that the context names; they must be in floating point.
/// Embeddings, norms and the head stay.
/// @param activations  what the input of each linear gets; where it is off, a linear that quantizes its input already
///        keeps doing so
/// @throws Error as quantize_weight_codes, naming the linear; Unsupported when a linear is quantized already
DecoderWeights quantize_decoder(
    DecoderWeights weights, const WeightQuantizer& quantizer,
    const std::function<ActivationQuantization(std::int64_t layer, LinearKind kind)>& activations,
    const WeightContext& context, const JobContext& job);

}  // namespace qs
