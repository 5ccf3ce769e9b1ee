#include "backend/methods/measured_bits.h"

#include "backend/model/model.h"

namespace qs {

double mean_bits_kept_as_floats(const Model& model, DecoderWeights& weights, const WeightContext& context,
                                const std::function<double(const LinearSlot&)>& bits) {
  DecoderWeights original = model.weights();
  const std::vector<LinearSlot> was = linear_slots(original), is = linear_slots(weights);
  double sum = 0.0, elements = 0.0;
  for (std::size_t i = 0; i < is.size(); ++i) {
    const LinearOp& linear = **is[i].op;
    if (!context.quantizes(is[i].layer) || *is[i].op == *was[i].op || linear.packed()) continue;
    const double size = static_cast<double>(linear.out_features()) * static_cast<double>(linear.in_features());
    sum += size * bits(is[i]);
    elements += size;
  }
  return elements > 0.0 ? sum / elements : 0.0;
}

}  // namespace qs
