#include "backend/methods/kivi_cache.h"

#include <algorithm>

#include "backend/methods/kv_cache_base.h"

namespace qs {
namespace {

at::ScalarType held_type(const GroupQuantizer& quantizer) {
  return quantizer.store == GroupStore::F16 ? at::kHalf : at::kFloat;
}

class KiviCache final : public StoreCache {
 public:
  KiviCache(const Kivi& method, const CacheShape& shape)
      : StoreCache(shape, held_type(method.quantizer(KvRole::Key))),
        residual_length_(method.residual_length()),
        keys_(shape.kv_heads, shape.head_dim, PackedRows::Layout::Blocks, method.group_size(),
              method.quantizer(KvRole::Key)),
        values_(shape.kv_heads, shape.head_dim, PackedRows::Layout::Runs, method.group_size(),
                method.quantizer(KvRole::Value)),
        key_residual_(shape.kv_heads, shape.head_dim, held_type(method.quantizer(KvRole::Key))),
        value_residual_(shape.kv_heads, shape.head_dim, held_type(method.quantizer(KvRole::Key)), residual_length_),
        newest_value_(shape.kv_heads, shape.head_dim, held_type(method.quantizer(KvRole::Key))) {}

  TokenRange quantized(KvRole role) const override {
    return {0, role == KvRole::Key ? keys_.tokens() : values_.tokens()};
  }

 protected:
  Stores stores(KvRole role) const override {
    if (role == KvRole::Key) return {&keys_, &key_residual_};
    return {&values_, &value_residual_, &newest_value_};
  }

  void store_prompt(const float* key, const float* value, std::int64_t tokens) override {
    const std::int64_t quantized_keys = tokens / residual_length_ * residual_length_;
    const std::int64_t quantized_values = std::max<std::int64_t>(0, tokens - residual_length_);
    keys_.append(key, quantized_keys);
    key_residual_.append(key + quantized_keys * width(), tokens - quantized_keys);
    values_.append(value, quantized_values);
    value_residual_.append(value + quantized_values * width(), tokens - quantized_values);
  }

  void before_attention(const float* key, const float* value) override {
    key_residual_.append(key, 1);
    newest_value_.append(value, 1);
  }

  void after_attention() override {
    if (key_residual_.tokens() == residual_length_) {
      std::vector<float> rows(static_cast<std::size_t>(residual_length_ * width()));
      key_residual_.read(0, residual_length_, rows.data());
      keys_.append(rows.data(), residual_length_);
      key_residual_.clear();
    }
    std::vector<float> row(static_cast<std::size_t>(width()));
    if (value_residual_.tokens() == residual_length_) {
      value_residual_.read(0, 1, row.data());
      values_.append(row.data(), 1);
    }
    newest_value_.read(0, 1, row.data());
    value_residual_.append(row.data(), 1);
    newest_value_.clear();
  }

 private:
  std::int64_t residual_length_;
  PackedRows keys_, values_;
  FloatRows key_residual_, value_residual_, newest_value_;
};

}  // namespace

std::unique_ptr<KvCache> make_kivi_cache(const Kivi& method, const CacheShape& shape) {
  return std::make_unique<KiviCache>(method, shape);
}

}  // namespace qs
