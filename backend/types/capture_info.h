#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "backend/types/attention_rules.h"
#include "backend/types/rope_spec.h"

namespace qs {

/// One dataset of a capture or results file.
struct DatasetInfo {
  std::string path;   ///< "/layers/003/key"
  std::string dtype;  ///< "float16", "float32", "int32", "utf-8"
  std::vector<std::int64_t> shape;
  std::string axes;  ///< "kv_heads,tokens,head_dim"
  std::int64_t bytes_stored = 0;
  std::int64_t non_finite = 0;  ///< NaN and infinite values that were written
};

/// What a capture file says of itself. The layout is in README.md and design section 4.
struct CaptureInfo {
  std::string path;
  int version = 0;
  bool complete = false;  ///< false: the capture was stopped or killed; what was flushed is intact
  std::string model_name, model_fingerprint, architecture, created_utc, program_version;
  std::string text_source, text_sha256;  ///< file name or "chat", and the hash of the text that ran
  std::int64_t tokens = 0, layers = 0, heads = 0, kv_heads = 0, head_dim = 0, hidden_size = 0;
  std::int64_t window = 0;  ///< tokens of one forward pass; each window is a sequence of its own
  RopeSpec rope;
  std::vector<RopeSpec> layer_ropes;        ///< [layers]; empty: `rope` in all
  std::vector<AttentionRules> layer_rules;  ///< [layers]; empty: the usual ones in all
  std::vector<DatasetInfo> datasets;
  std::vector<std::string> linears;  ///< names under /activations, in model order

  const RopeSpec& rope_of(std::int64_t layer) const {
    return layer_ropes.empty() ? rope : layer_ropes.at(static_cast<std::size_t>(layer));
  }
  AttentionRules rules_of(std::int64_t layer) const {
    return layer_rules.empty() ? AttentionRules{} : layer_rules.at(static_cast<std::size_t>(layer));
  }
};

/// Size and time of a capture before it runs.
struct CaptureForecast {
  std::int64_t bytes = 0;      ///< upper bound, before compression
  double seconds = 0.0;        ///< from a short timed forward pass; 0 when not measured
  std::int64_t free_disk = 0;  ///< bytes free where the file will lie
};

/// Per-input-channel statistics of the input of one linear layer over all captured tokens.
struct ActivationStats {
  std::string linear;                              ///< "layers.3.self_attn.q_proj"
  std::vector<float> absmax, mean, second_moment;  ///< [in_features]
  std::int64_t tokens = 0;
};

}  // namespace qs
