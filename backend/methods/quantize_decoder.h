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

/// Quantizes every linear of every block of `weights`, which must be in floating point. Embeddings, norms and the head
/// stay.
/// @param activations  what the input of each linear gets
/// @throws Error as quantize_weight_codes, naming the linear; Unsupported when a linear is quantized already
DecoderWeights quantize_decoder(
    DecoderWeights weights, const WeightQuantizer& quantizer,
    const std::function<ActivationQuantization(std::int64_t layer, LinearKind kind)>& activations,
    WeightExecution execution, const JobContext& job);

}  // namespace qs
