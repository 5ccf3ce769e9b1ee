#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/method.h"
#include "backend/model/model.h"

namespace qs {

/// Running maxima of every linear's input channels over forward passes of the full-precision model (weights
/// specification 4.1), for when no capture is at hand.
/// @param ids     tokens of the calibration text, cut into passes of `window` tokens; a shorter rest is used too
/// @param window  tokens a pass; 0: the smaller of 512 and the model's context
/// @throws Error InvalidArgument when there are no tokens; NaN or infinity in an input, naming the linear
Calibration calibrate(const Model& model, const std::vector<std::int64_t>& ids, std::int64_t window,
                      const std::string& source, const JobContext& job);

}  // namespace qs
