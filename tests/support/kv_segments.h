#pragma once

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"

/// Builders of cache segments for the kernel tests and benches.
namespace kernel_fixture {

using namespace qs::kernels;

inline std::vector<float> normal_values(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& value : x) value = normal(random);
  return x;
}

inline std::vector<std::uint16_t> to_half(const std::vector<float>& x) {
  std::vector<std::uint16_t> half(x.size());
  f32_to_f16_scalar(x.data(), half.data(), static_cast<std::int64_t>(x.size()));
  return half;
}

/// One segment with its storage.
struct Stored {
  std::vector<float> rows;
  std::vector<std::uint16_t> halves, scale, group_min;
  std::vector<std::uint8_t> packed;
  Segment segment;
};

/// @param x  [tokens][head_dim]; group_size in channels (PerToken) or tokens (PerChannel), unused for F32 and F16
inline Stored store(const std::vector<float>& x, std::int64_t tokens, std::int64_t head_dim, Storage storage, int bits,
                    std::int64_t group_size) {
  Stored out;
  Segment& segment = out.segment;
  segment.storage = storage;
  segment.bits = bits;
  segment.tokens = tokens;
  segment.group_size = group_size;
  if (storage == Storage::F32) {
    out.rows = x;
    segment.data = out.rows.data();
    segment.stride = head_dim * 4;
    return out;
  }
  if (storage == Storage::F16) {
    out.halves = to_half(x);
    segment.data = out.halves.data();
    segment.stride = head_dim * 2;
    return out;
  }
  const std::int64_t row_bytes = packed_row_bytes(head_dim, bits);
  const bool per_token = storage == Storage::PerToken;
  const std::int64_t groups = per_token ? tokens * (head_dim / group_size) : tokens / group_size * head_dim;
  std::vector<std::uint8_t> codes(x.size());
  std::vector<float> scale(static_cast<std::size_t>(groups));
  std::vector<float> low(scale.size());
  out.packed.resize(static_cast<std::size_t>(tokens * row_bytes));
  if (per_token) {
    quantize_rows_scalar(
        {x.data(), tokens, head_dim, head_dim, group_size, bits, Compute::F32, codes.data(), scale.data(), low.data()});
    for (std::int64_t t = 0; t < tokens; ++t)
      pack_row(codes.data() + t * head_dim, head_dim, bits, out.packed.data() + t * row_bytes);
    segment.stride = row_bytes;
    segment.scale_stride = head_dim / group_size;
  } else {
    quantize_columns_scalar(
        {x.data(), tokens, head_dim, head_dim, group_size, bits, Compute::F32, codes.data(), scale.data(), low.data()});
    for (std::int64_t t = 0; t < tokens; t += group_size)
      pack_block(codes.data() + t * head_dim, head_dim, group_size, head_dim, bits, out.packed.data() + t * row_bytes);
    segment.stride = group_size * row_bytes;
    segment.scale_stride = head_dim;
  }
  out.scale = to_half(scale);
  out.group_min = to_half(low);
  segment.data = out.packed.data();
  segment.scale = out.scale.data();
  segment.group_min = out.group_min.data();
  return out;
}

/// Softmax attention in double precision over the decoded segments.
inline std::vector<double> brute_force(const std::vector<float>& query, std::int64_t queries, std::int64_t head_dim,
                                       const std::vector<float>& keys, const std::vector<float>& values,
                                       std::int64_t tokens) {
  std::vector<double> out(static_cast<std::size_t>(queries * head_dim), 0.0);
  for (std::int64_t i = 0; i < queries; ++i) {
    std::vector<double> score(static_cast<std::size_t>(tokens), 0.0);
    double max = -1e300;
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t d = 0; d < head_dim; ++d)
        score[t] += static_cast<double>(query[i * head_dim + d]) * static_cast<double>(keys[t * head_dim + d]);
      max = std::max(max, score[t]);
    }
    double sum = 0.0;
    for (double& s : score) sum += s = std::exp(s - max);
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t d = 0; d < head_dim; ++d)
        out[i * head_dim + d] += score[t] / sum * static_cast<double>(values[t * head_dim + d]);
  }
  return out;
}

/// Buffers of a partial result.
struct Partial {
  std::vector<float> max, sum, out;
  Partial(std::int64_t queries, std::int64_t head_dim)
      : max(static_cast<std::size_t>(queries)), sum(max.size()), out(static_cast<std::size_t>(queries * head_dim)) {
    reset_partial(view(), queries, head_dim);
  }
  AttentionPartial view() { return {max.data(), sum.data(), out.data()}; }
};

}  // namespace kernel_fixture
