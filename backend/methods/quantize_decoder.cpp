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
                                const WeightContext& context, const JobContext& job) {
  const std::vector<LinearSlot> slots = linear_slots(weights);
  const auto count = static_cast<std::int64_t>(slots.size());
  for (std::int64_t i = 0; i < count; ++i) {
    job.checkpoint(i, count, "Quantizing weights");
    const LinearSlot& slot = slots[static_cast<std::size_t>(i)];
    if (!context.quantizes(slot.layer)) continue;
    const LinearOp& linear = **slot.op;
    require_floating_point(linear, slot.name);
    ActivationQuantization input = activations(slot.layer, slot.kind);
    const ActivationQuantization kept = input_quantization(linear);
    if (!kept.off() && !input.off()) {
      throw Error(ErrorCode::InvalidArgument, "The input of '" + slot.name +
                                                  "' is quantized already by the method in front; set bits_a=16 in "
                                                  "one of the two.");
    }
    if (quantizer.off()) {
      if (!input.off()) *slot.op = std::make_shared<QuantizedInputLinear>(*slot.op, input);
      continue;
    }
    if (input.off()) input = kept;
    const WeightCodes codes = quantize_weight_codes(linear.weight(), quantizer, slot.name);
    *slot.op = make_quantized_linear(codes, quantizer, linear.bias(), input, context.execution, weights.compute_type);
  }
  job.checkpoint(count, count, "Quantizing weights");
  return weights;
}

}  // namespace qs
