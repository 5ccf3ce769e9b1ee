#pragma once

#include <cstdint>
#include <string>

#include "backend/evaluation/evaluate.h"
#include "backend/types/layer_statistics.h"

namespace qs {

struct DecoderWeights;

/// What a variant's weights were rounded from: smoothed where the setup smooths, else the model's own.
/// @param context  that the variant was made with
DecoderWeights unrounded_weights(const Model& model, const std::optional<Setup>& setup, const WeightContext& context,
                                 const JobContext& job);

/// Local errors over teacher-forced windows of a text (weights specification 10.1): each linear of a block with the
/// input that reaches it in the quantized model, against `unrounded` on the same input.
/// @param request  its text, window, windows and KV mode; the published table has 10 windows of 2048 tokens
/// @throws Error InvalidArgument as evaluate, and for KV methods that must decode token by token
LayerStatistics layer_statistics(const Variant& variant, const DecoderWeights& unrounded, const EvalRequest& request,
                                 const JobContext& job);

struct DistanceRequest {
  EvalText text;
  std::int64_t window = 0;   ///< 0: the smaller of 2048 and the model's context
  std::int64_t windows = 1;  ///< at random places of the text
  std::uint64_t seed = 1234;
  KvMode kv_mode = KvMode::Streaming;
};

/// Accumulated errors (weights specification 10.2): both models run side by side, block by block, and the inputs of
/// every linear and of the head are compared. The baseline is the model in full precision with nothing quantized, in
/// the form of `unrounded`, which computes the same: behind a smoothed norm the untouched model's inputs have other
/// units. Linears of experts are left out, since the two models route tokens apart; the router's input stands for them.
/// @throws Error as layer_statistics; InvalidArgument when the text is too short
LayerDistance layer_distance(const Variant& variant, const DecoderWeights& unrounded, const DistanceRequest& request,
                             const JobContext& job);

/// One row a linear: its name under `layer`, then the metrics alphabetically. Infinite numbers are written inf.
std::string csv_text(const LayerStatistics& statistics);
std::string csv_text(const LayerDistance& distance);

}  // namespace qs
