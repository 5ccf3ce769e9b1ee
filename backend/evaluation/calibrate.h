#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/method.h"
#include "backend/model/model.h"

namespace qs {

/// Tokens whose inputs a calibration keeps beside the maxima (Calibration::input_rows).
struct InputSample {
  std::int64_t rows = 0;   ///< at most; fewer where the text is shorter or they would take more than 256 MiB. 0: none
  std::uint64_t seed = 0;  ///< of the draw over all tokens of the text
};

/// Running maxima of every linear's input channels and of the operands of the attention products over forward passes of
/// the full-precision model (weights specification 4.1), for when no capture is at hand. The same passes keep the
/// inputs of the sampled tokens, so that what compares layer outputs needs no pass of its own.
/// @param ids     tokens of the calibration text, cut into passes of `window` tokens; a shorter rest is used too
/// @param window  tokens a pass; 0: the smaller of 512 and the model's context
/// @throws Error InvalidArgument when there are fewer than two tokens; NaN or infinity in an input, naming the linear;
///         Unsupported for a sample of a model that cannot be smoothed
Calibration calibrate(const Model& model, const std::vector<std::int64_t>& ids, std::int64_t window,
                      const std::string& source, const JobContext& job, const InputSample& sample = {});

/// The sample that alpha sweeps and alpha_rule=search use.
inline constexpr InputSample kUsualInputSample = {512, 0};

}  // namespace qs
