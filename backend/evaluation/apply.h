#pragma once

#include <string>
#include <vector>

#include "backend/method.h"
#include "backend/storage/capture_reader.h"
#include "backend/types/kv_overlay.h"
#include "backend/types/quantize_report.h"
#include "backend/types/setup.h"
#include "backend/types/tensor_view.h"

namespace qs {

/// A setup applied to one tensor: keys or values of a layer, or a weight.
struct AppliedTensor {
  TensorReport report;
  TensorView original, reconstructed;  ///< f32 [kv_heads, tokens, head_dim]
  TensorView codes;                    ///< as float; 255: full precision
  TokenRange quantized;
  KvOverlay overlay;  ///< of keys and values: groups, ranges, picks, what is kept
};

/// Keys and values of `layer`, quantized as after a prompt of all tokens, with the functional error of attention over
/// the captured queries (NaN when the capture has none).
struct AppliedLayer {
  AppliedTensor key, value;
  TensorView keys_seen;  ///< reconstructed keys as queries meet them: after RoPE, [kv_heads, tokens, head_dim]
};
/// The same of a prompt that is at hand. @param rules  of the layer, for the functional error
AppliedLayer apply_to_prompt(const KvMethod& method, const KvPrompt& prompt, const AttentionRules& rules,
                             const JobContext& job);
/// @param artifact  calibration on the model of the capture; null: setups that need one are calibrated on the layer's
///        own keys and values, and a warning says so
AppliedLayer apply_to_capture(const Setup& setup, CaptureReader& capture, std::int64_t layer, const JobContext& job,
                              const KvArtifact* artifact = nullptr);

/// A weight setup on one weight. @param weight  f32 [out_features, in_features]
AppliedTensor apply_to_weight(const Setup& setup, const TensorView& weight, const std::string& name);

}  // namespace qs
