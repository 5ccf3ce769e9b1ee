#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace qs {

/// How teacher-forced evaluation treats the KV cache (design section 3).
enum class KvMode { Streaming, PrefillQuantized };
const char* kv_mode_id(KvMode mode);  ///< "streaming", "prefill_quantized"

/// Everything besides the method that changes a quality number. Its hash is the protocol fingerprint.
struct Protocol {
  std::string text_name, text_sha256, tokenizer;
  std::int64_t window = 0, stride = 0, windows = 0;
  bool bos = true;  ///< BOS in front of every window; false: of the first only
  KvMode kv_mode = KvMode::Streaming;
  std::string dtype = "float32", device = "cpu", joining_rule = "as stored";
  std::string prompt_template;
  std::int64_t shots = 0;
  bool operator==(const Protocol&) const = default;

  std::vector<std::string> differences(const Protocol& other) const;  ///< "window: 512 against 2048"
};

struct VariantLabel {
  std::string model;         ///< ModelInfo::name
  std::string weights;       ///< setup line or empty
  std::string kv;            ///< setup line or empty
  std::string text() const;  ///< "sample-hf · kivi:k_bits=2" or "sample-hf · full precision"
  bool operator==(const VariantLabel&) const = default;
};

/// One metric of one task on one variant.
struct TaskResult {
  std::string task;    ///< "ppl", "kl", "top1"
  std::string metric;  ///< "perplexity", "kl_divergence_nats", "top1_agreement"
  double value = 0.0;
  double standard_error = 0.0;
  std::int64_t n = 0;  ///< windows or items
  double seconds = 0.0;
  std::vector<double> per_item;  ///< one value a window, in order: what paired differences are computed from
};

struct EvalMemory {
  std::int64_t weights_bytes = 0, kv_bytes = 0, kv_bytes_full_precision = 0, peak_rss = 0;
};

/// One run: the tasks of one variant under one protocol.
struct EvalReport {
  VariantLabel variant;
  Protocol protocol;
  std::vector<TaskResult> tasks;
  EvalMemory memory;
  double weight_bits = 16.0, kv_bits = 16.0;  ///< effective bits as stored
  std::uint64_t seed = 0;
  std::string fingerprint;  ///< of the protocol, see backend/evaluation/protocol.h
  std::string program_version, created_utc, model_fingerprint;
};

/// Mean of b - a over paired items with a 95 % confidence interval.
struct PairedDifference {
  double mean = 0.0, low = 0.0, high = 0.0;
  std::int64_t n = 0;
};

/// One point of a SmoothQuant alpha sweep.
struct AlphaPoint {
  enum class State { Pending, Done, Failed, Cached };
  double alpha = 0.0;
  State state = State::Pending;
  double value = 0.0;            ///< perplexity or mean squared output error, see AlphaSweepResult::metric
  double low = 0.0, high = 0.0;  ///< 95 % interval of the paired difference to full precision, added to it
  std::vector<double> per_window;
  std::vector<double> layer_mse;  ///< layers * pairs, layer-major; pair 0 norm -> q,k,v; pair 1 norm -> gate,up
  std::string failure;
};

struct AlphaScheme {
  std::string label;  ///< "W8A8"
  int bits_w = 8, bits_a = 8;
  std::vector<AlphaPoint> points;  ///< ascending alpha
};

struct AlphaSweepResult {
  std::string model, metric;  ///< metric: "perplexity" or "layer_mse"
  Protocol protocol;
  std::string fingerprint;
  double full_precision = 0.0;
  std::vector<double> full_precision_per_window;
  std::int64_t layers = 0;
  std::vector<std::string> pairs;  ///< names of the folded pairs of a layer
  std::vector<AlphaScheme> schemes;
};

/// Per-channel maxima of one folded pair before smoothing: what the migration plot is computed from, live.
struct MigrationInput {
  std::string pair;                                     ///< "layers.2.input_layernorm"
  std::vector<float> activation_absmax, weight_absmax;  ///< [hidden_size]
};

}  // namespace qs
