#pragma once

#include <functional>

#include "backend/method.h"

namespace qs {

/// Mean bits a weight over the linears of the quantized layers that neither compute from codes nor are the model's own:
/// what DecoderWeights::measured_bits says of them. 0 when there are none.
/// @param bits  of a linear, by the method's formula; 16 for one that is left in floating point
double mean_bits_kept_as_floats(const Model& model, DecoderWeights& weights, const WeightContext& context,
                                const std::function<double(const LinearSlot&)>& bits);

}  // namespace qs
