#include "backend/methods/kv_cache_base.h"
#include "backend/methods/kv_params.h"

namespace qs {
namespace {

class FullPrecisionCache final : public StoreCache {
 public:
  FullPrecisionCache(const CacheShape& shape, at::ScalarType type)
      : StoreCache(shape, type),
        keys_(shape.kv_heads, shape.head_dim, type),
        values_(shape.kv_heads, shape.head_dim, type) {}

  TokenRange quantized(KvRole) const override { return {}; }

 protected:
  Stores stores(KvRole role) const override { return {role == KvRole::Key ? &keys_ : &values_}; }
  void store_prompt(const float* key, const float* value, std::int64_t tokens) override {
    keys_.append(key, tokens);
    values_.append(value, tokens);
  }
  void before_attention(const float* key, const float* value) override { store_prompt(key, value, 1); }
  Reclaimed release(const std::vector<std::uint8_t>& dead, bool) override {
    Reclaimed reclaimed;
    for (std::size_t token = 0; token < dead.size(); ++token)
      if (dead[token] != 0) reclaimed.tokens.push_back(static_cast<std::int64_t>(token));
    keys_.erase(reclaimed.tokens);
    values_.erase(reclaimed.tokens);
    return reclaimed;
  }

 private:
  FloatRows keys_, values_;
};

}  // namespace

std::unique_ptr<KvCache> make_full_precision_cache(const CacheShape& shape, at::ScalarType type) {
  check_head_counts(shape);
  return std::make_unique<FullPrecisionCache>(shape, type);
}

}  // namespace qs
