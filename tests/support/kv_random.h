#pragma once

#include <ATen/ATen.h>

#include <random>

namespace qs::test {

/// f32 tensor of normal values from a seeded generator, every fourth channel `outlier` times larger.
inline at::Tensor random_kv(std::mt19937_64& generator, at::IntArrayRef shape, double outlier = 1.0) {
  std::normal_distribution<float> normal(0.0f, 1.0f);
  at::Tensor x = at::empty(shape, at::kFloat);
  float* const data = x.data_ptr<float>();
  const std::int64_t channels = shape.back();
  for (std::int64_t i = 0; i < x.numel(); ++i)
    data[i] = normal(generator) * (i % channels % 4 == 3 ? static_cast<float>(outlier) : 1.0f);
  return x;
}

/// Attention of one query per head in double precision, straight from the definition.
/// @param query  [heads, head_dim]; key, value [kv_heads, tokens, head_dim]
inline at::Tensor brute_force_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const at::Tensor q = query.to(at::kDouble), k = key.to(at::kDouble), v = value.to(at::kDouble);
  const std::int64_t heads = q.size(0), per_kv_head = heads / k.size(0);
  at::Tensor out = at::empty_like(q);
  for (std::int64_t head = 0; head < heads; ++head) {
    const at::Tensor scores = k[head / per_kv_head].mv(q[head]) / std::sqrt(static_cast<double>(q.size(1)));
    out[head] = v[head / per_kv_head].t().mv(at::softmax(scores, 0));
  }
  return out;
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.numel() == 0 ? 0.0 : (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

}  // namespace qs::test
