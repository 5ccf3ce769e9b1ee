#include "backend/methods/kvquant_cache.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "backend/methods/kv_cache_base.h"
#include "backend/methods/nuq_rows.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

/// Keys and values that are worth a thread of their own.
constexpr std::int64_t kElementsPerThread = 1 << 17;
constexpr std::int64_t kTile = kernels::kTileTokens;

struct Sums {
  Sums(std::int64_t heads, std::int64_t head_dim)
      : max(static_cast<std::size_t>(heads)), sum(max.size()), out(static_cast<std::size_t>(heads * head_dim)) {
    kernels::reset_partial(of(0, head_dim), heads, head_dim);
  }
  kernels::AttentionPartial of(std::int64_t head, std::int64_t head_dim) {
    return {max.data() + head, sum.data() + head, out.data() + head * head_dim};
  }
  std::vector<float> max, sum, out;
};

class KvquantCache final : public StoreCache {
 public:
  KvquantCache(const Kvquant& method, const CacheShape& shape)
      : StoreCache(shape, at::kHalf, KeyDomain::PreRope),
        first_tokens_(method.settings().first_tokens),
        first_keys_(shape.kv_heads, shape.head_dim, at::kHalf),
        first_values_(shape.kv_heads, shape.head_dim, at::kHalf),
        keys_(shape.kv_heads, shape.head_dim, KvRole::Key, method.coding(KvRole::Key), method.settings()),
        values_(shape.kv_heads, shape.head_dim, KvRole::Value, method.coding(KvRole::Value), method.settings()) {}

  TokenRange quantized(KvRole) const override { return {first_keys_.tokens(), tokens()}; }

 protected:
  Stores stores(KvRole role) const override {
    return role == KvRole::Key ? Stores{&first_keys_, &keys_} : Stores{&first_values_, &values_};
  }

  void store_prompt(const float* key, const float* value, std::int64_t tokens) override {
    const std::int64_t first = std::min(first_tokens_ - first_keys_.tokens(), tokens);
    first_keys_.append(key, first);
    first_values_.append(value, first);
    keys_.append(key + first * width(), tokens - first);
    values_.append(value + first * width(), tokens - first);
  }

  void before_attention(const float* key, const float* value) override { store_prompt(key, value, 1); }

  std::int64_t constant_bytes() const override { return keys_.constant_bytes() + values_.constant_bytes(); }

  void attend(const float* query, float* out, AttentionWeights* weights, const TokenPositions& positions,
              const std::uint8_t* dead) const override {
    if (!values_.has_tiles() || weights != nullptr || positions.original != nullptr || dead != nullptr) {
      StoreCache::attend(query, out, weights, positions, dead);
      return;
    }
    const std::int64_t heads = shape().heads, head_dim = shape().head_dim;
    const float scale = shape().score_scale > 0.0 ? static_cast<float>(shape().score_scale)
                                                  : 1.0f / std::sqrt(static_cast<float>(head_dim));
    std::vector<float> scaled(query, query + heads * head_dim);
    for (float& q : scaled) q *= scale;
    const std::int64_t first = first_keys_.tokens(), end = first + keys_.tokens();
    const std::int64_t seen = shape().sliding_window > 0 ? std::max<std::int64_t>(0, end - shape().sliding_window) : 0;
    const std::int64_t begin = std::max<std::int64_t>(0, seen - first), coded = keys_.tokens() - begin;
    const std::int64_t wanted = coded * width() / kElementsPerThread;
    const std::int64_t spans = std::clamp<std::int64_t>(wanted, 1, at::get_num_threads());
    std::vector<Sums> sums(static_cast<std::size_t>(spans), Sums(heads, head_dim));
    if (seen < first) add_first_tokens(scaled.data(), seen, positions, sums[0]);
    at::parallel_for(0, spans, 1, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t span = from; span < to; ++span) {
        add_coded(scaled.data(), begin + coded * span / spans, begin + coded * (span + 1) / spans, positions,
                  sums[static_cast<std::size_t>(span)]);
      }
    });
    for (std::int64_t span = 1; span < spans; ++span)
      kernels::merge_partial(sums[0].of(0, head_dim), sums[span].of(0, head_dim), heads, head_dim);
    kernels::finish_attention(sums[0].of(0, head_dim), heads, head_dim, out);
  }

 private:
  kernels::HeadAttention head_attention(const float* query, std::int64_t head, const kernels::Segment& key,
                                        const kernels::Segment& value) const {
    const std::int64_t queries = shape().heads / shape().kv_heads;
    return {.query = query + head * queries * shape().head_dim,
            .queries = queries,
            .head_dim = shape().head_dim,
            .keys = &key,
            .values = &value,
            .key_segments = 1,
            .value_segments = 1,
            .token_begin = 0,
            .token_end = key.tokens,
            .score_softcap = static_cast<float>(shape().score_softcap)};
  }

  void add(const float* query, std::int64_t head, const kernels::Segment& key, const kernels::Segment& value,
           Sums& sums) const {
    const std::int64_t first_query = head * (shape().heads / shape().kv_heads);
    kernels::attend_head(kernels::kernel_set(), head_attention(query, head, key, value),
                         sums.of(first_query, shape().head_dim));
  }

  void add_first_tokens(const float* query, std::int64_t begin, const TokenPositions& positions, Sums& sums) const {
    const std::int64_t count = first_keys_.tokens() - begin, head_dim = shape().head_dim;
    std::vector<float> key_rows(static_cast<std::size_t>(count * head_dim)), value_rows(key_rows);
    const auto segment = [&](const std::vector<float>& rows) {
      return kernels::Segment{.storage = kernels::Storage::F32,
                              .tokens = count,
                              .data = rows.data(),
                              .stride = head_dim * static_cast<std::int64_t>(sizeof(float))};
    };
    for (std::int64_t head = 0; head < shape().kv_heads; ++head) {
      first_keys_.decode(head, begin, begin + count, key_rows.data(), head_dim);
      first_values_.decode(head, begin, begin + count, value_rows.data(), head_dim);
      if (positions.rotation != nullptr) {
        kernels::kernel_set().rotate_rows({.rows = key_rows.data(),
                                           .count = count,
                                           .row_stride = head_dim,
                                           .half = positions.half,
                                           .table = positions.rotation,
                                           .first_position = begin});
      }
      add(query, head, segment(key_rows), segment(value_rows), sums);
    }
  }

  /// Coded tokens [begin, end). Tiles are those of the stores, so that each lies in one chunk.
  void add_coded(const float* query, std::int64_t begin, std::int64_t end, const TokenPositions& positions,
                 Sums& sums) const {
    SparseTile key_sparse, value_sparse;
    while (begin < end) {
      const std::int64_t count = std::min(end, (begin / kTile + 1) * kTile) - begin;
      keys_.gather_sparse(begin, count, key_sparse);
      values_.gather_sparse(begin, count, value_sparse);
      for (std::int64_t head = 0; head < shape().kv_heads; ++head) {
        kernels::TableRows key_rows, value_rows;
        key_rows.half = positions.half;
        if (positions.rotation != nullptr)
          key_rows.rotation = positions.rotation + (first_keys_.tokens() + begin) * 2 * positions.half;
        add(query, head, keys_.tile_segment(head, begin, count, key_sparse, key_rows),
            values_.tile_segment(head, begin, count, value_sparse, value_rows), sums);
      }
      begin += count;
    }
  }

  std::int64_t first_tokens_;
  FloatRows first_keys_, first_values_;
  NuqRows keys_, values_;
};

}  // namespace

std::unique_ptr<KvCache> make_kvquant_cache(const Kvquant& method, const CacheShape& shape) {
  return std::make_unique<KvquantCache>(method, shape);
}

}  // namespace qs
