#include "backend/methods/kv_cache_base.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <string>

#include "backend/types/error.h"
#include "kernels/dispatch.h"

namespace qs {
namespace {

std::string extents(at::IntArrayRef sizes) {
  std::string text;
  for (const std::int64_t extent : sizes) text += (text.empty() ? "[" : ", ") + std::to_string(extent);
  return text.empty() ? "[]" : text + "]";
}

void require_shape(const at::Tensor& x, at::IntArrayRef expected, const char* what) {
  if (x.sizes() == expected && at::isFloatingType(x.scalar_type())) return;
  throw Error(ErrorCode::InvalidArgument, std::string("The cache expects a ") + what + " of shape " +
                                              extents(expected) + " and a float type, found " + extents(x.sizes()) +
                                              ".");
}

}  // namespace

StoreCache::StoreCache(const CacheShape& shape, at::ScalarType held, KeyDomain domain)
    : shape_(shape),
      held_(held),
      rotation_(domain == KeyDomain::PreRope ? RotationTable::shared(shape.rope, shape.head_dim) : nullptr) {}

std::vector<float> StoreCache::rows_of(const at::Tensor& x, KvRole role) const {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor flat = (wide.dim() == 3 ? wide.transpose(0, 1) : wide).contiguous();
  const float* const first = flat.data_ptr<float>();
  std::vector<float> rows(first, first + flat.numel());
  const auto count = static_cast<std::int64_t>(rows.size());
  if (kernels::first_not_finite(rows.data(), count) >= 0) check_finite(x, role, tokens_);
  if (held_ == at::kHalf && x.scalar_type() != at::kHalf) {
    std::vector<std::uint16_t> half(rows.size());
    kernels::kernel_set().f32_to_f16(rows.data(), half.data(), count);
    kernels::kernel_set().f16_to_f32(half.data(), rows.data(), count);
    if (kernels::first_not_finite(rows.data(), count) >= 0) as_stored(x, GroupStore::F16);
  }
  return rows;
}

void StoreCache::prefill(const at::Tensor& key, const at::Tensor& value) {
  if (tokens_ != 0) {
    throw Error(ErrorCode::InvalidArgument, "A prompt can only be stored in an empty cache; this one holds " +
                                                std::to_string(tokens_) + " tokens.");
  }
  check_kv_tensor(key);
  const std::int64_t tokens = key.size(1);
  require_shape(key, {shape_.kv_heads, tokens, shape_.head_dim}, "key");
  require_shape(value, {shape_.kv_heads, tokens, shape_.head_dim}, "value");
  const std::vector<float> key_rows = rows_of(key, KvRole::Key), value_rows = rows_of(value, KvRole::Value);
  store_prompt(key_rows.data(), value_rows.data(), tokens);
  tokens_ = tokens;
}

at::Tensor StoreCache::append_and_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  at::Tensor out = append_then_attend(query, key, value, nullptr, nullptr);
  after_attention();
  return out;
}

at::Tensor StoreCache::append_then_attend(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                                          AttentionWeights* weights, const std::uint8_t* dead) {
  require_shape(query, {shape_.heads, shape_.head_dim}, "query");
  require_shape(key, {shape_.kv_heads, shape_.head_dim}, "key");
  require_shape(value, {shape_.kv_heads, shape_.head_dim}, "value");
  const std::vector<float> key_row = rows_of(key, KvRole::Key), value_row = rows_of(value, KvRole::Value);
  const at::Tensor rotated = query.to(at::kFloat).contiguous();
  at::Tensor out = at::empty({shape_.heads, shape_.head_dim}, at::kFloat);
  before_attention(key_row.data(), value_row.data());
  ++tokens_;
  TokenPositions positions{.original = original_positions()};
  std::shared_ptr<const RotationTable::Rows> rows;
  if (rotation_) {
    rows = rotation_->rows(tokens_);
    positions.rotation = rows->values.data();
    positions.half = rows->half;
  }
  attend(rotated.data_ptr<float>(), out.data_ptr<float>(), weights ? weights : wanted_weights(), positions, dead);
  return out;
}

void StoreCache::attend(const float* query, float* out, AttentionWeights* weights, const TokenPositions& positions,
                        const std::uint8_t* dead) const {
  attend_stores(stores(KvRole::Key), stores(KvRole::Value), shape_, query, out, weights, positions, dead);
}

Reclaimed StoreCache::reclaim(const std::vector<std::uint8_t>& dead, bool compact) {
  Reclaimed reclaimed = release(dead, compact);
  tokens_ -= static_cast<std::int64_t>(reclaimed.tokens.size());
  return reclaimed;
}

std::int64_t StoreCache::bytes_of(const std::vector<std::uint8_t>& dead) const {
  std::int64_t bytes = 0;
  for (const KvRole role : {KvRole::Key, KvRole::Value}) {
    auto begin = dead.begin();
    for (const TokenStore* store : stores(role)) {
      const auto end = begin + store->tokens();
      CacheStats stats;
      store->add_bytes(stats);
      if (store->tokens() > 0) bytes += stats.bytes() * std::count(begin, end, 1) / store->tokens();
      begin = end;
    }
  }
  return bytes;
}

std::pair<at::Tensor, at::Tensor> StoreCache::materialize() const {
  return {materialize_stores(stores(KvRole::Key), shape_), materialize_stores(stores(KvRole::Value), shape_)};
}

CacheStats StoreCache::stats() const {
  CacheStats stats;
  for (const TokenStore* store : stores(KvRole::Key)) store->add_bytes(stats);
  for (const TokenStore* store : stores(KvRole::Value)) store->add_bytes(stats);
  stats.tokens = tokens_;
  stats.tokens_full_precision = tokens_ - quantized(KvRole::Key).size();
  stats.bytes_constants = constant_bytes();
  stats.bytes_if_f16 = 2 * tokens_ * width() * 2;
  return stats;
}

}  // namespace qs
