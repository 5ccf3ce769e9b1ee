#pragma once

#include <memory>
#include <vector>

#include "backend/methods/kv_store.h"
#include "backend/methods/rotation_table.h"

namespace qs {

/// Tokens that have left a cache for good.
struct Reclaimed {
  std::vector<std::int64_t> tokens;  ///< ascending, numbered as before
  std::int64_t requantized = 0;      ///< live tokens whose keys were quantized anew
};

/// What the caches of all methods share: checks, conversion to rows, attention over their stores, counting.
class StoreCache : public KvCache {
 public:
  /// @param held    type that full-precision tokens are kept in; keys and values are rounded to it as they arrive
  /// @param domain  PreRope: the stores hold keys before rotation, and attention rotates them by shape.rope while it
  ///                decodes them, each by its original position
  StoreCache(const CacheShape& shape, at::ScalarType held, KeyDomain domain = KeyDomain::PostRope);

  void prefill(const at::Tensor& key, const at::Tensor& value) final;
  at::Tensor append_and_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) final;
  /// The halves of append_and_attend, for token selection, which comes between attention and a flush.
  /// @param weights, dead  as in attend_stores; `dead` covers the new token
  at::Tensor append_then_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                AttentionWeights* weights, const std::uint8_t* dead);
  void finish_step() { after_attention(); }
  /// Gives up room that dead tokens take. @param dead  [tokens]; compact: also where live tokens must be quantized anew
  Reclaimed reclaim(const std::vector<std::uint8_t>& dead, bool compact);
  /// Bytes that the dead tokens still take.
  std::int64_t bytes_of(const std::vector<std::uint8_t>& dead) const;
  std::pair<at::Tensor, at::Tensor> materialize() const final;
  std::int64_t tokens() const final { return tokens_; }
  CacheStats stats() const final;

 protected:
  using Stores = std::vector<const TokenStore*>;
  /// In token order; together they hold every token.
  virtual Stores stores(KvRole role) const = 0;
  /// Stores a whole prompt. @param key, value  f32 [tokens][kv_heads * head_dim], already rounded to the held type
  virtual void store_prompt(const float* key, const float* value, std::int64_t tokens) = 0;
  /// What happens to a new token before attention runs over stores(), and after it.
  virtual void before_attention(const float* key, const float* value) = 0;
  virtual void after_attention() {}
  virtual Reclaimed release(const std::vector<std::uint8_t>& /*dead*/, bool /*compact*/) { return {}; }
  /// Where the softmax weights of a step go, asked before attention runs and filled before after_attention; null when
  /// the method needs none.
  virtual AttentionWeights* wanted_weights() { return nullptr; }
  /// Tables, thresholds and the like: what the layer's method keeps once, however many caches there are.
  virtual std::int64_t constant_bytes() const { return 0; }
  /// Attention of one new query per head over stores(); caches with kernels of their own override it.
  /// @param query  f32 [heads][head_dim], rotated, not yet scaled; out receives f32 [heads][head_dim]
  /// @param weights  where the softmax weights go; null when nobody asks
  virtual void attend(const float* query, float* out, AttentionWeights* weights, const TokenPositions& positions,
                      const std::uint8_t* dead) const;
  /// Position in the sequence of every token in stores(), in order; null while no token was dropped.
  virtual const std::int64_t* original_positions() const { return nullptr; }

  const CacheShape& shape() const { return shape_; }
  std::int64_t width() const { return shape_.kv_heads * shape_.head_dim; }

 private:
  std::vector<float> rows_of(const at::Tensor& x, KvRole role) const;

  CacheShape shape_;
  at::ScalarType held_;
  std::shared_ptr<RotationTable> rotation_;  ///< null: keys arrive rotated
  std::int64_t tokens_ = 0;
};

}  // namespace qs
