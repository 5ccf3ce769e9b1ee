#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace qs {

/// What one can say about a model without running it; plain data for cards, forecasts and --json.
struct ModelInfo {
  std::string name;  ///< folder or file name
  std::string path;
  std::string architecture;  ///< "LlamaForCausalLM"
  std::string format;        ///< "Hugging Face folder", "llama2.c"
  std::string tokenizer;     ///< "SentencePiece BPE", "tokenizer.json BPE", "none"
  std::int64_t parameters = 0;
  std::int64_t layers = 0, heads = 0, kv_heads = 0, head_dim = 0;
  std::int64_t hidden_size = 0, intermediate_size = 0, vocab_size = 0, max_context = 0;
  std::string dtype;       ///< stored type of the weights: "float16"
  std::int64_t bytes = 0;  ///< of the weights as stored
  std::int64_t bos_id = -1, eos_id = -1;
  std::vector<std::int64_t> eos_ids;  ///< every id that ends a text; eos_id is the first
  bool tied_embeddings = false;
  std::string fingerprint;  ///< hash of config, headers and samples of the values: which model a calibration or a
                            ///< capture belongs to

  /// Keys and values of one token over all layers in 16-bit floats.
  std::int64_t kv_bytes_per_token() const { return 2 * layers * kv_heads * head_dim * 2; }
};

/// Bytes that a model is expected to need before it is loaded. The weights stay mapped in their stored type: memory
/// that the operating system can take back at any time, so only cache and scratch must fit.
struct MemoryEstimate {
  std::int64_t weights = 0;  ///< as stored
  std::int64_t kv = 0;       ///< full-precision cache at `context` tokens
  std::int64_t scratch = 0;  ///< activations of one forward pass
  std::int64_t context = 0;  ///< tokens
  std::int64_t total() const { return weights + kv + scratch; }
  std::int64_t allocated() const { return kv + scratch; }
};

}  // namespace qs
