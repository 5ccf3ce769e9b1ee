#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace qs {

struct SamplingOptions {
  double temperature = 0.0;  ///< 0: greedy
  int top_k = 0;             ///< 0: off
  double top_p = 1.0, min_p = 0.0, repetition_penalty = 1.0;
  std::uint64_t seed = 0;
  int max_tokens = 128;
  bool stop_at_eos = true;
};

struct TokenCandidate {
  std::int64_t id = 0;
  std::string text;
  float probability = 0.0f;
};

/// One generated token. `text` completes characters: bytes of an unfinished UTF-8 character are held back.
struct TokenStep {
  std::int64_t index = 0, id = 0;
  std::string text;
  float logprob = 0.0f;                            ///< natural logarithm, of the unscaled distribution
  std::vector<TokenCandidate> top;                 ///< the five likeliest, descending
  std::int64_t kv_bytes = 0, kv_bytes_if_f16 = 0;  ///< allocated by the cache now, and what f16 would take
};

/// Bytes of a live KV cache by part, summed over layers; counted from allocations, never from a formula.
struct CacheStats {
  std::int64_t bytes_codes = 0, bytes_scales = 0, bytes_zeros = 0, bytes_outliers = 0, bytes_indices = 0;
  std::int64_t bytes_widths = 0;           ///< of vectors whose code width is their own
  std::int64_t bytes_small_factor = 0;     ///< factors that stay in 16 bits beside the quantized one
  std::int64_t bytes_full_precision = 0;   ///< residual window, sinks
  std::int64_t bytes_constants = 0;        ///< tables, thresholds, permutations: once a layer, not part of bytes()
  std::int64_t tokens = 0;                 ///< tokens in the cache, one layer
  std::int64_t tokens_full_precision = 0;  ///< keys of one layer still in full precision
  std::int64_t bytes_if_f16 = 0;           ///< every token that came in 16-bit floats, evicted ones included
  // Token selection only; 0 elsewhere.
  std::int64_t tokens_evicted = 0;        ///< that came and attention no longer sees, one KV head of one layer
  std::int64_t tokens_dead = 0;           ///< evicted, but still taking room, one KV head of one layer
  std::int64_t bytes_dead = 0;            ///< of bytes(): what dead tokens take
  std::int64_t requantized_tokens = 0;    ///< keys quantized anew by compaction, over KV heads and layers
  std::int64_t bytes_if_f16_evicted = 0;  ///< of bytes_if_f16: tokens that take no room any more
  std::int64_t bytes() const {
    return bytes_codes + bytes_scales + bytes_zeros + bytes_outliers + bytes_indices + bytes_widths +
           bytes_small_factor + bytes_full_precision;
  }
  std::int64_t bytes_live() const { return bytes() - bytes_dead; }
  /// Bits an element of the tokens that take room.
  double effective_bits() const {
    const std::int64_t held = bytes_if_f16 - bytes_if_f16_evicted;
    return held ? 16.0 * static_cast<double>(bytes()) / static_cast<double>(held) : 0.0;
  }
  CacheStats& operator+=(const CacheStats& other);
};

struct GenerationResult {
  std::vector<std::int64_t> prompt_ids, ids;
  std::string text;
  std::uint64_t seed = 0;
  bool greedy = true, stopped_at_eos = false;
  double seconds_prefill = 0.0, seconds_decode = 0.0;
  CacheStats cache;
  double tokens_per_second() const {
    return seconds_decode > 0 && ids.size() > 1 ? (static_cast<double>(ids.size()) - 1) / seconds_decode : 0.0;
  }
};

/// What lock-step replay says of one token: the variant was fed the reference's tokens.
struct ReplayStep {
  std::int64_t index = 0, id = 0;
  double kl_nats = 0.0;             ///< KL(reference || variant)
  double probability_change = 0.0;  ///< p_variant(id) - p_reference(id)
  bool same_top1 = true;
  double reference_margin = 0.0;                           ///< p1 - p2 of the reference
  std::vector<TokenCandidate> reference_top, variant_top;  ///< five each
};

}  // namespace qs
