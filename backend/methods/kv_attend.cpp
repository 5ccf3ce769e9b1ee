#include <ATen/Functions.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "backend/methods/kv_store.h"
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

}  // namespace

void attend_stores(const std::vector<const TokenStore*>& keys, const std::vector<const TokenStore*>& values,
                   const CacheShape& shape, const float* query, float* out, AttentionWeights* weights) {
  const kernels::KernelSet& set = kernels::kernel_set();
  const std::int64_t tokens = count_tokens(keys), per_kv_head = shape.heads / shape.kv_heads;
  const std::int64_t padded_dim = (shape.head_dim + 7) / 8 * 8;  // the kernels read rows of a multiple of 8
  const bool fused = padded_dim == shape.head_dim && all_fused(keys) && all_fused(values);

  std::vector<float> scaled(static_cast<std::size_t>(shape.heads * padded_dim), 0.0f);
  const float inverse_root = 1.0f / std::sqrt(static_cast<float>(shape.head_dim));
  for (std::int64_t head = 0; head < shape.heads; ++head) {
    for (std::int64_t d = 0; d < shape.head_dim; ++d) {
      scaled[head * padded_dim + d] = query[head * shape.head_dim + d] * inverse_root;
    }
  }
  DerivedMinima derived;
  std::vector<HeadSegments> segments(static_cast<std::size_t>(shape.kv_heads));
  if (fused) {
    for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
      for (const TokenStore* store : keys) {
        if (store->tokens() > 0) store->add_segments(head, segments[head].keys, derived);
      }
      for (const TokenStore* store : values) {
        if (store->tokens() > 0) store->add_segments(head, segments[head].values, derived);
      }
    }
  }

  const std::int64_t weight_stride = weights ? std::max<std::int64_t>(0, tokens - weights->first_token) : 0;
  if (weights) weights->weights.assign(static_cast<std::size_t>(shape.heads * weight_stride), 0.0f);
  const auto scores_of = [&](std::int64_t kv_head) {
    return weight_stride > 0 ? weights->weights.data() + kv_head * per_kv_head * weight_stride : nullptr;
  };

  const auto add_fused = [&](std::int64_t begin, std::int64_t end, Partials& partials) {
    for (std::int64_t tile = begin; tile < end; tile += kOuterTile) {
      for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
        const HeadSegments& parts = segments[head];
        kernels::attend_head(set,
                             {.query = scaled.data() + head * per_kv_head * padded_dim,
                              .queries = per_kv_head,
                              .head_dim = padded_dim,
                              .keys = parts.keys.data(),
                              .values = parts.values.data(),
                              .key_segments = static_cast<std::int64_t>(parts.keys.size()),
                              .value_segments = static_cast<std::int64_t>(parts.values.size()),
                              .token_begin = tile,
                              .token_end = std::min(end, tile + kOuterTile),
                              .scores = scores_of(head),
                              .score_stride = weight_stride,
                              .score_begin = weights ? weights->first_token : 0},
                             partials.of(head * per_kv_head));
      }
    }
  };
  const auto add_decoded = [&](std::int64_t begin, std::int64_t end, Partials& partials) {
    constexpr std::int64_t kTile = kernels::kTileTokens;
    std::vector<float> key_rows(static_cast<std::size_t>(kTile * padded_dim), 0.0f), value_rows(key_rows);
    for (std::int64_t tile = begin; tile < end; tile += kTile) {
      const std::int64_t count = std::min(kTile, end - tile);
      for (std::int64_t head = 0; head < shape.kv_heads; ++head) {
        decode_tokens(keys, head, tile, tile + count, key_rows.data(), padded_dim);
        decode_tokens(values, head, tile, tile + count, value_rows.data(), padded_dim);
        const std::int64_t stride = padded_dim * static_cast<std::int64_t>(sizeof(float));
        const kernels::Segment key{
            .storage = kernels::Storage::F32, .tokens = count, .data = key_rows.data(), .stride = stride};
        const kernels::Segment value{
            .storage = kernels::Storage::F32, .tokens = count, .data = value_rows.data(), .stride = stride};
        kernels::attend_head(set,
                             {.query = scaled.data() + head * per_kv_head * padded_dim,
                              .queries = per_kv_head,
                              .head_dim = padded_dim,
                              .keys = &key,
                              .values = &value,
                              .key_segments = 1,
                              .value_segments = 1,
                              .token_begin = 0,
                              .token_end = count,
                              .scores = scores_of(head),
                              .score_stride = weight_stride,
                              .score_begin = weights ? weights->first_token - tile : 0},
                             partials.of(head * per_kv_head));
      }
    }
  };
  const auto add = [&](std::int64_t begin, std::int64_t end, Partials& partials) {
    fused ? add_fused(begin, end, partials) : add_decoded(begin, end, partials);
  };

  const std::int64_t wanted = tokens * shape.kv_heads * shape.head_dim / kElementsPerThread;
  const std::int64_t spans = std::clamp<std::int64_t>(wanted, 1, at::get_num_threads());
  std::vector<Partials> partials(static_cast<std::size_t>(spans), Partials(shape.heads, padded_dim));
  if (spans == 1) {
    add(0, tokens, partials[0]);
  } else {
    at::parallel_for(0, spans, 1, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t span = first; span < last; ++span)
        add(tokens * span / spans, tokens * (span + 1) / spans, partials[span]);
    });
    for (std::int64_t span = 1; span < spans; ++span) {
      kernels::merge_partial(partials[0].of(0), partials[span].of(0), shape.heads, padded_dim);
    }
  }
  if (weights) {
    for (std::int64_t head = 0; head < shape.heads; ++head) {
      float* const row = weights->weights.data() + head * weight_stride;
      for (std::int64_t t = 0; t < weight_stride; ++t)
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
