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
  const std::vector<LinearSlot> slots = linear_slots(weights);
  const auto count = static_cast<std::int64_t>(slots.size());
  for (std::int64_t i = 0; i < count; ++i) {
    job.checkpoint(i, count, "Quantizing weights");
    const LinearSlot& slot = slots[static_cast<std::size_t>(i)];
    const LinearOp& linear = **slot.op;
    require_floating_point(linear, slot.name);
    const ActivationQuantization input = activations(slot.layer, slot.kind);
    if (quantizer.off()) {
      if (!input.off()) *slot.op = std::make_shared<QuantizedInputLinear>(*slot.op, input);
      continue;
    }
    const WeightCodes codes = quantize_weight_codes(linear.weight(), quantizer, slot.name);
    *slot.op = make_quantized_linear(codes, quantizer, linear.bias(), input, execution, weights.compute_type);
  }
  job.checkpoint(count, count, "Quantizing weights");
  return weights;
}

}  // namespace qs
