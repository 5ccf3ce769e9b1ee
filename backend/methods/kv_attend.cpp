#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>

#include "backend/methods/kv_store.h"
#include "backend/methods/small_factor.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

/// Tokens of all heads that are visited before the next ones: their packed bytes stay in the second-level cache.
constexpr std::int64_t kOuterTile = 1024;
/// Keys and values that are worth a thread of their own.
constexpr std::int64_t kElementsPerThread = 1 << 17;

struct Partials {
  Partials(std::int64_t heads, std::int64_t head_dim)
      : heads(heads), head_dim(head_dim), max(heads), sum(heads), out(heads * head_dim) {
    kernels::reset_partial(of(0), heads, head_dim);
  }
  kernels::AttentionPartial of(std::int64_t head) {
    return {max.data() + head, sum.data() + head, out.data() + head * head_dim};
  }
  std::int64_t heads, head_dim;
  std::vector<float> max, sum, out;
};

struct HeadSegments {
  std::vector<kernels::Segment> keys, values;
};

void decode_tokens(const std::vector<const TokenStore*>& stores, std::int64_t head, std::int64_t begin,
                   std::int64_t end, float* rows, std::int64_t row_stride) {
  std::int64_t store_begin = 0;
  for (const TokenStore* store : stores) {
    const std::int64_t store_end = store_begin + store->tokens();
    const std::int64_t from = std::max(begin, store_begin), to = std::min(end, store_end);
    if (from < to)
      store->decode(head, from - store_begin, to - store_begin, rows + (from - begin) * row_stride, row_stride);
    store_begin = store_end;
  }
}

std::int64_t count_tokens(const std::vector<const TokenStore*>& stores) {
  std::int64_t tokens = 0;
  for (const TokenStore* store : stores) tokens += store->tokens();
  return tokens;
}

bool all_fused(const std::vector<const TokenStore*>& stores) {
  return std::all_of(stores.begin(), stores.end(), [](const TokenStore* s) { return s->tokens() == 0 || s->fused(); });
}

/// Attention over the stores of one layer, shared by the threads that add tokens.
class StoreAttention {
 public:
  StoreAttention(const std::vector<const TokenStore*>& keys, const std::vector<const TokenStore*>& values,
                 const CacheShape& shape, const float* query, const TokenPositions& positions,
                 AttentionWeights* weights, const std::uint8_t* dead, std::int64_t tokens)
      : keys_(keys),
        values_(values),
        shape_(shape),
        positions_(positions),
        weights_(weights),
        dead_(dead),
        weight_stride_(weights ? std::max<std::int64_t>(0, tokens - weights->first_token) : 0),
        rotation_{positions.rotation, positions.half, positions.original},
        padded_dim_((shape.head_dim + 7) / 8 * 8),
        scaled_(static_cast<std::size_t>(shape.heads * padded_dim_), 0.0f),
        segments_(static_cast<std::size_t>(shape.kv_heads)) {
    const float scale = shape.score_scale > 0.0 ? static_cast<float>(shape.score_scale)
                                                : 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      for (std::int64_t d = 0; d < shape.head_dim; ++d)
        scaled_[head * padded_dim_ + d] = query[head * shape.head_dim + d] * scale;
    }
    // What no tile visits (tokens beyond a sliding window) keeps the weight 0.
    if (weights)
      weights->weights.assign(static_cast<std::size_t>(shape.heads * weight_stride_),
                              -std::numeric_limits<float>::infinity());
    const bool whole = padded_dim_ == shape.head_dim;
    keys_fused_ = whole && positions.rotation == nullptr && all_fused(keys);
    values_fused_ = whole && all_fused(values);
    find_stretches();
    if (!stretches_.empty()) keys_fused_ = values_fused_ = keys_fused_ && values_fused_;
    for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
      if (keys_fused_) add_segments(keys, head, segments_[head].keys);
      if (values_fused_) add_segments(values, head, segments_[head].values);
    }
    rotated_.resize(keys.size());
    for (std::size_t i = 0; positions.rotation != nullptr && values_fused_ && i < keys.size(); ++i) {
      if (keys[i]->tokens() == 0 || !keys[i]->rotates()) continue;
      rotated_[i] = segments_;
      for (std::int64_t head = 0; head < shape.kv_heads; ++head)
        keys[i]->add_segments(head, rotated_[i][head].keys, derived_);
    }
  }

  std::int64_t padded_dim() const { return padded_dim_; }
  std::int64_t weight_stride() const { return weight_stride_; }

  void add(std::int64_t begin, std::int64_t end, Partials& partials) const {
    if (!stretches_.empty() && keys_fused_) return add_stretches(begin, end, partials);
    if (keys_fused_ && values_fused_) return add_fused(segments_, 0, nullptr, begin, end, partials);
    if (positions_.rotation == nullptr || !values_fused_) return add_decoded(begin, end, partials);
    std::int64_t store_begin = 0;
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      const std::int64_t store_end = store_begin + keys_[i]->tokens();
      const std::int64_t from = std::max(begin, store_begin), to = std::min(end, store_end);
      if (from < to && !rotated_[i].empty()) {
        add_fused(rotated_[i], store_begin, &rotation_, from, to, partials);
      } else if (from < to) {
        add_decoded(from, to, partials);
      }
      store_begin = store_end;
    }
  }

 private:
  /// Tokens up to `end` whose fused rows are coordinates of the same factors.
  struct Stretch {
    std::int64_t end = 0;
    const SmallFactor* value = nullptr;
    std::vector<float> query;  ///< [heads][head_dim] in the coordinates of the keys
  };

  /// Leaves `stretches_` empty when no store holds coordinates.
  void find_stretches() {
    const auto has_factor = [](const TokenStore* store) { return store->factor() != nullptr; };
    if (std::none_of(keys_.begin(), keys_.end(), has_factor) &&
        std::none_of(values_.begin(), values_.end(), has_factor))
      return;
    auto key = keys_.begin(), value = values_.begin();
    std::int64_t key_end = 0, value_end = 0, end = 0;
    for (const std::int64_t tokens = count_tokens(keys_); end < tokens;) {
      while (key_end <= end) key_end += (*key++)->tokens();
      while (value_end <= end) value_end += (*value++)->tokens();
      end = std::min(key_end, value_end);
      Stretch stretch{.end = end, .value = (*std::prev(value))->factor(), .query = scaled_};
      if (const SmallFactor* const factor = (*std::prev(key))->factor())
        factor->to_coordinates(scaled_.data(), static_cast<std::int64_t>(scaled_.size()), stretch.query.data());
      stretches_.push_back(std::move(stretch));
    }
  }

  void add_segments(const std::vector<const TokenStore*>& stores, std::int64_t head,
                    std::vector<kernels::Segment>& segments) {
    for (const TokenStore* store : stores) {
      if (store->tokens() > 0) store->add_segments(head, segments, derived_);
    }
  }

  kernels::HeadAttention head_attention(const HeadSegments& parts, std::int64_t head) const {
    const std::int64_t queries = shape_.heads / shape_.kv_heads;
    return {.query = scaled_.data() + head * queries * padded_dim_,
            .queries = queries,
            .head_dim = padded_dim_,
            .keys = parts.keys.data(),
            .values = parts.values.data(),
            .key_segments = static_cast<std::int64_t>(parts.keys.size()),
            .value_segments = static_cast<std::int64_t>(parts.values.size()),
            .score_softcap = static_cast<float>(shape_.score_softcap),
            .dead = dead_,
            .scores = weight_stride_ > 0 ? weights_->weights.data() + head * queries * weight_stride_ : nullptr,
            .score_stride = weight_stride_,
            .score_begin = weights_ ? weights_->first_token : 0};
  }

  /// @param key_first  token that the first key segment begins with
  /// @param rotation   null when keys are rotated already
  /// @param query      null: as it came
  void add_fused(const std::vector<HeadSegments>& segments, std::int64_t key_first,
                 const kernels::KeyRotation* rotation, std::int64_t begin, std::int64_t end, Partials& partials,
                 const float* query = nullptr) const {
    for (std::int64_t tile = begin; tile < end; tile += kOuterTile) {
      for (std::int64_t head = 0; head < shape_.kv_heads; ++head) {
        kernels::HeadAttention args = head_attention(segments[head], head);
        args.token_begin = tile;
        args.token_end = std::min(end, tile + kOuterTile);
        args.key_first = key_first;
        args.key_rotation = rotation;
        if (query != nullptr) args.query = query + head * args.queries * padded_dim_;
        kernels::attend_head(kernels::kernel_set(), args, partials.of(head * args.queries));
      }
    }
  }

  /// Scores coordinates with the query in them; sums of coordinates go back to channels once a stretch.
  void add_stretches(std::int64_t begin, std::int64_t end, Partials& partials) const {
    std::int64_t first = 0;
    for (const Stretch& stretch : stretches_) {
      const std::int64_t from = std::max(begin, first), to = std::min(end, stretch.end);
      first = stretch.end;
      if (from >= to) continue;
      if (stretch.value == nullptr) {
        add_fused(segments_, 0, nullptr, from, to, partials, stretch.query.data());
        continue;
      }
      Partials own(shape_.heads, padded_dim_);
      add_fused(segments_, 0, nullptr, from, to, own, stretch.query.data());
      stretch.value->from_coordinates(own.out.data(), shape_.heads * padded_dim_);
      kernels::merge_partial(partials.of(0), own.of(0), shape_.heads, padded_dim_);
    }
  }

  /// Decodes a tile of the side that the kernels cannot read as it lies.
  void add_decoded(std::int64_t begin, std::int64_t end, Partials& partials) const {
    constexpr std::int64_t kTile = kernels::kTileTokens;
    std::vector<float> key_rows(static_cast<std::size_t>(kTile * padded_dim_), 0.0f), value_rows(key_rows);
    for (std::int64_t tile = begin; tile < end; tile += kTile) {
      const std::int64_t count = std::min(kTile, end - tile);
      const kernels::Segment key = f32_segment(key_rows, count), value = f32_segment(value_rows, count);
      for (std::int64_t head = 0; head < shape_.kv_heads; ++head) {
        kernels::HeadAttention args = head_attention(segments_[head], head);
        args.token_begin = tile;
        args.token_end = tile + count;
        if (!keys_fused_) {
          decode_tokens(keys_, head, tile, tile + count, key_rows.data(), padded_dim_);
          if (positions_.rotation != nullptr) rotate(key_rows.data(), tile, count);
          args.keys = &key;
          args.key_segments = 1;
          args.key_first = tile;
        }
        if (!values_fused_) {
          decode_tokens(values_, head, tile, tile + count, value_rows.data(), padded_dim_);
          args.values = &value;
          args.value_segments = 1;
          args.value_first = tile;
        }
        kernels::attend_head(kernels::kernel_set(), args, partials.of(head * args.queries));
      }
    }
  }

  void rotate(float* rows, std::int64_t first, std::int64_t count) const {
    kernels::kernel_set().rotate_rows(
        {.rows = rows,
         .count = count,
         .row_stride = padded_dim_,
         .half = positions_.half,
         .table = positions_.rotation,
         .positions = positions_.original == nullptr ? nullptr : positions_.original + first,
         .first_position = first});
  }

  kernels::Segment f32_segment(const std::vector<float>& rows, std::int64_t count) const {
    return {.storage = kernels::Storage::F32,
            .tokens = count,
            .data = rows.data(),
            .stride = padded_dim_ * static_cast<std::int64_t>(sizeof(float))};
  }

  const std::vector<const TokenStore*>&keys_, &values_;
  const CacheShape& shape_;
  TokenPositions positions_;
  AttentionWeights* weights_;
  const std::uint8_t* dead_;
  std::int64_t weight_stride_;
  kernels::KeyRotation rotation_;
  std::int64_t padded_dim_;  ///< the kernels read rows of a multiple of 8
  std::vector<float> scaled_;
  DerivedMinima derived_;
  std::vector<HeadSegments> segments_;
  std::vector<std::vector<HeadSegments>> rotated_;  ///< by key store: with its segments, when it rotates() its keys
  std::vector<Stretch> stretches_;                  ///< empty: no store holds coordinates
  bool keys_fused_ = false, values_fused_ = false;
};

/// The oldest token that the newest one sees.
std::int64_t first_seen(std::int64_t tokens, const CacheShape& shape, const TokenPositions& positions) {
  if (shape.sliding_window <= 0 || tokens == 0) return 0;
  if (positions.original == nullptr) return std::max<std::int64_t>(0, tokens - shape.sliding_window);
  const std::int64_t newest = positions.original[tokens - 1];
  return std::upper_bound(positions.original, positions.original + tokens, newest - shape.sliding_window) -
         positions.original;
}

}  // namespace

void attend_stores(const std::vector<const TokenStore*>& keys, const std::vector<const TokenStore*>& values,
                   const CacheShape& shape, const float* query, float* out, AttentionWeights* weights,
                   const TokenPositions& positions, const std::uint8_t* dead) {
  const std::int64_t end = count_tokens(keys);
  const StoreAttention attention(keys, values, shape, query, positions, weights, dead, end);
  const std::int64_t padded_dim = attention.padded_dim();
  const std::int64_t begin = first_seen(end, shape, positions), tokens = end - begin;
  const std::int64_t wanted = tokens * shape.kv_heads * shape.head_dim / kElementsPerThread;
  const std::int64_t spans = std::clamp<std::int64_t>(wanted, 1, at::get_num_threads());
  std::vector<Partials> partials(static_cast<std::size_t>(spans), Partials(shape.heads, padded_dim));
  if (spans == 1) {
    attention.add(begin, end, partials[0]);
  } else {
    at::parallel_for(0, spans, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t span = first; span < last; ++span)
        attention.add(begin + tokens * span / spans, begin + tokens * (span + 1) / spans, partials[span]);
    });
    for (std::int64_t span = 1; span < spans; ++span) {
      kernels::merge_partial(partials[0].of(0), partials[span].of(0), shape.heads, padded_dim);
    }
  }
  if (weights) {
    const std::int64_t stride = attention.weight_stride();
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      float* const row = weights->weights.data() + head * stride;
      for (std::int64_t t = 0; t < stride; ++t)
        row[t] = std::exp(row[t] - partials[0].max[head]) / partials[0].sum[head];
    }
  }
  if (padded_dim == shape.head_dim) {
    kernels::finish_attention(partials[0].of(0), shape.heads, padded_dim, out);
    return;
  }
  std::vector<float> padded_out(static_cast<std::size_t>(shape.heads * padded_dim));
  kernels::finish_attention(partials[0].of(0), shape.heads, padded_dim, padded_out.data());
  for (std::int64_t head = 0; head < shape.heads; ++head) {
    std::copy_n(padded_out.data() + head * padded_dim, shape.head_dim, out + head * shape.head_dim);
  }
}

at::Tensor materialize_stores(const std::vector<const TokenStore*>& stores, const CacheShape& shape) {
  const std::int64_t tokens = count_tokens(stores);
  at::Tensor x = at::empty({shape.kv_heads, tokens, shape.head_dim}, at::kFloat);
  for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
    decode_tokens(stores, head, 0, tokens, x.data_ptr<float>() + head * tokens * shape.head_dim, shape.head_dim);
  }
  return x;
}

}  // namespace qs
