#include "backend/methods/quantize_decoder.h"

#include <ATen/ATen.h>

#include "backend/types/error.h"

namespace qs {

ActivationScope parse_activation_scope(const std::string& id) {
  if (id == "all") return ActivationScope::All;
  if (id == "norm_fed") return ActivationScope::NormFed;
  throw Error(ErrorCode::InvalidArgument, "activation_scope must be all or norm_fed; it is '" + id + "'.");
}

bool in_scope(ActivationScope scope, LinearKind kind) {
  return scope == ActivationScope::All || (kind != LinearKind::O && kind != LinearKind::Down);
}

DecoderWeights quantize_decoder(DecoderWeights weights, const WeightQuantizer& quantizer,
                                const std::function<ActivationQuantization(std::int64_t, LinearKind)>& activations,
                                WeightExecution execution, const JobContext& job) {
  const auto layers = static_cast<std::int64_t>(weights.blocks.size());
  const auto kinds = static_cast<std::int64_t>(kLinearKinds.size());
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    DecoderBlock& block = weights.blocks[static_cast<std::size_t>(layer)];
    for (const LinearKind kind : kLinearKinds) {
      job.checkpoint(layer * kinds + static_cast<std::int64_t>(kind), layers * kinds, "Quantizing weights");
      const std::string name = linear_name(layer, kind);
      const DenseLinear& dense = dense_linear(block.linear(kind), name);
      const ActivationQuantization input = activations(layer, kind);
      std::shared_ptr<const LinearOp>& slot = block.linear_slot(kind);
      if (quantizer.off()) {
        if (!input.off()) slot = std::make_shared<QuantizedInputLinear>(slot, input);
        continue;
      }
      const WeightCodes codes = quantize_weight_codes(dense.stored_weight(), quantizer, name);
      slot =
          make_quantized_linear(codes, quantizer, dense.bias(), input, execution, dense.stored_weight().scalar_type());
    }
  }
  job.checkpoint(layers * kinds, layers * kinds, "Quantizing weights");
  return weights;
}

}  // namespace qs
