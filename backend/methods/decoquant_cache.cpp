#include "backend/methods/decoquant_cache.h"

#include <ATen/ATen.h>

#include "backend/methods/kv_cache_base.h"

namespace qs {
namespace {

at::ScalarType held_type(const GroupQuantizer& quantizer) {
  return quantizer.store == GroupStore::F16 ? at::kHalf : at::kFloat;
}

/// One decomposed segment. What the kernels read are codes of the large factor; `factor` leads to the channels.
class DecomposedRows final : public TokenStore {
 public:
  DecomposedRows(const Decoquant& method, const CacheShape& shape, const float* rows, std::int64_t tokens)
      : TokenStore(shape.kv_heads, shape.head_dim),
        large_(shape.kv_heads, shape.head_dim, PackedRows::Layout::Runs, shape.kv_heads * shape.head_dim,
               method.quantizer()) {
    Decoquant::Segment segment =
        method.decompose(at::from_blob(const_cast<float*>(rows), {tokens, width()}, at::kFloat));
    small_ = std::move(segment.small);
    large_.append(segment.factors.large.data_ptr<float>(), tokens);
  }

  std::int64_t tokens() const override { return large_.tokens(); }
  bool fused() const override { return large_.fused(); }
  void add_segments(std::int64_t head, std::vector<kernels::Segment>& segments, DerivedMinima& derived) const override {
    large_.add_segments(head, segments, derived);
  }
  const SmallFactor* factor() const override { return &small_; }
  void decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
              std::int64_t row_stride) const override {
    large_.decode(head, begin, end, rows, row_stride);
    for (std::int64_t t = 0; t < end - begin; ++t) small_.from_coordinates(rows + t * row_stride, head_dim_);
  }
  void add_bytes(CacheStats& stats) const override {
    large_.add_bytes(stats);
    stats.bytes_small_factor += small_.bytes();
  }

 private:
  PackedRows large_;
  SmallFactor small_;
};

class DecoquantCache final : public StoreCache {
 public:
  DecoquantCache(const Decoquant& method, const CacheShape& shape)
      : StoreCache(shape, held_type(method.quantizer())),
        method_(method),
        key_rest_(shape.kv_heads, shape.head_dim, held_type(method.quantizer())),
        value_rest_(shape.kv_heads, shape.head_dim, held_type(method.quantizer())) {}

  TokenRange quantized(KvRole) const override { return {0, tokens() - key_rest_.tokens()}; }

 protected:
  Stores stores(KvRole role) const override {
    const bool key = role == KvRole::Key;
    Stores all;
    for (const auto& segment : key ? key_segments_ : value_segments_) all.push_back(segment.get());
    all.push_back(key ? &key_rest_ : &value_rest_);
    return all;
  }

  void store_prompt(const float* key, const float* value, std::int64_t tokens) override {
    const std::int64_t whole = method_.after_prefill(KvRole::Key, tokens).size();
    if (whole > 0) add_segment(key, value, whole);
    key_rest_.append(key + whole * width(), tokens - whole);
    value_rest_.append(value + whole * width(), tokens - whole);
  }

  void before_attention(const float* key, const float* value) override {
    key_rest_.append(key, 1);
    value_rest_.append(value, 1);
  }

  void after_attention() override {
    if (key_rest_.tokens() < method_.flush_len()) return;
    const std::int64_t count = key_rest_.tokens();
    std::vector<float> key(static_cast<std::size_t>(count * width())), value(key.size());
    key_rest_.read(0, count, key.data());
    value_rest_.read(0, count, value.data());
    add_segment(key.data(), value.data(), count);
    key_rest_.clear();
    value_rest_.clear();
  }

 private:
  void add_segment(const float* key, const float* value, std::int64_t tokens) {
    key_segments_.push_back(std::make_unique<DecomposedRows>(method_, shape(), key, tokens));
    value_segments_.push_back(std::make_unique<DecomposedRows>(method_, shape(), value, tokens));
  }

  Decoquant method_;
  std::vector<std::unique_ptr<DecomposedRows>> key_segments_, value_segments_;
  FloatRows key_rest_, value_rest_;
};

}  // namespace

std::unique_ptr<KvCache> make_decoquant_cache(const Decoquant& method, const CacheShape& shape) {
  return std::make_unique<DecoquantCache>(method, shape);
}

}  // namespace qs
