#pragma once

#include <string>

#include "backend/method.h"
#include "backend/methods/linear_quantizer.h"

namespace qs {

/// How a method goes through the model (weights specification 5.4).
struct LayerwisePlan {
  std::string setup;             ///< method and all of its parameters: a checkpoint fits only the same
  bool true_sequential = false;  ///< inputs are captured again after each stage of a block: {q, k, v}, {o}, {gate, up},
                                 ///< {down}
};

/// Quantizes block by block: captures the inputs of a block's linears from the already quantized blocks before it,
/// quantizes them, and runs the quantized block for the inputs of the next. Hidden states of the windows are kept for
/// one block only.
///
/// Blocks that the context does not name (WeightContext::quantizes) stay as they are; the windows run through them. A
/// linear that quantizes its input keeps doing so: the windows see it, H is of the inputs before it.
///
/// With a checkpoint folder each finished block is written to it (layer-0000.safetensors: the artifacts; setup.json:
/// what they were made from), flushed and renamed into place, and a later run with the same model, windows and setup
/// takes finished blocks from there.
/// @throws Error InvalidArgument without windows, for a checkpoint made from something else (naming what differs), or
///         for a weight that is quantized already; OutOfMemory before anything is run when the worst block does not fit
DecoderWeights quantize_layerwise(const Model& model, LinearQuantizer& quantizer, const LayerwisePlan& plan,
                                  const WeightContext& context, const JobContext& job);

/// Quantizes one block of a checkpoint again with other settings of the same method, behind the blocks before it, and
/// replaces its file. Later blocks stay as they are: their inputs were captured behind the old one. A later run with
/// the checkpoint's own setup takes the new block.
/// @throws Error InvalidArgument when the checkpoint lacks a block before this one or was made from another model or
///         other windows
void redo_layer(const Model& model, std::int64_t layer, LinearQuantizer& quantizer, const LayerwisePlan& plan,
                const WeightContext& context, const JobContext& job);

/// What a run needs, from shapes and a short measured product.
WeightForecast forecast_layerwise(const Model& model, const LinearQuantizer& quantizer, const LayerwisePlan& plan,
                                  const WeightContext& context);

}  // namespace qs
