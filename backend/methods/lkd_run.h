#pragma once

#include <set>
#include <string>

#include "backend/methods/lkd.h"

namespace qs {

/// Distils the chosen blocks of `weights` in order and puts them, quantized, into it. Hidden states run through the
/// teacher, the model as it was loaded, and are kept for one block only. Tells every block through
/// WeightContext::on_linear as "layers.3.block": loss after, rtn_loss before (rounding to nearest), effective bits.
///
/// With a checkpoint folder each distilled block is written to it (LayerwiseCheckpoint) and taken from there later:
/// codes (bit-packed), scale and zero_point of each run, shape {out_features, in_features, bits, run_length}, bias; or
/// weight (f32) where the width is 16; and under "block" what else was trained.
/// @param layers  not empty
/// @param setup   method with all parameters, for the checkpoint
/// @throws Error InvalidArgument without windows or for a checkpoint made from something else; OutOfMemory before
///         anything is run
void run_lkd(const Model& model, DecoderWeights& weights, const std::set<std::int64_t>& layers,
             const LkdQuantization& quantization, const LkdOptions& options, const std::string& setup,
             const WeightContext& context, const JobContext& job);

}  // namespace qs
