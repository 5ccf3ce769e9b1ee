#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qs {

/// How a weight setup is computed: dequantized weights in floating point, or products straight from the codes.
enum class WeightExecution { Simulated, Packed };

/// Token windows of a text that calibrated weight methods run through the model (weights specification 12.3).
struct CalibrationWindows {
  std::vector<std::vector<std::int64_t>> windows;  ///< token ids, each `seqlen` long
  std::vector<std::int64_t> starts;                ///< index of each window's first token in the text
  std::string source, source_sha256;               ///< which text
  std::int64_t seqlen = 0;
  std::int64_t text_tokens = 0;  ///< of the whole text
  std::uint64_t seed = 0;
  std::vector<std::string> notes;  ///< what was changed to make the windows fit the model
};

/// What a layer-by-layer run needs, told before it starts.
struct WeightForecast {
  std::int64_t bytes = 0;            ///< at its worst, beyond the loaded model
  std::int64_t hidden_bytes = 0;     ///< of it: hidden states of the windows
  std::int64_t hessian_bytes = 0;    ///< of it: H and its factors at the worst block
  std::int64_t available_bytes = 0;  ///< that can still be allocated
  double seconds = 0.0;              ///< from the operations and a short measured product
};

/// One linear layer as it was quantized, for plots and logs. Losses are proxy losses ½ tr(ΔW H ΔWᵀ) with
/// H = (2 / windows) Σ XᵀX over the calibration tokens; NaN when the method knows no H.
struct LayerProgress {
  std::int64_t layer = 0, layers = 0;
  std::string linear;  ///< "layers.3.self_attn.q_proj"
  double loss = 0.0;
  double rtn_loss = 0.0;  ///< of round to nearest on the same grid; of a sample of the rows where there are many
  double seconds = 0.0;
  double damping = 0.0;     ///< that the factorization needed; 0: none was used
  std::int64_t tokens = 0;  ///< that reached this linear
  double effective_bits = 0.0;
  std::vector<std::string> notes;  ///< fallbacks, dead columns, rank
  bool resumed = false;            ///< read from a checkpoint
};

}  // namespace qs
