#include "backend/methods/rtn_kv_cache.h"

#include "backend/methods/kv_cache_base.h"

namespace qs {
namespace {

at::ScalarType held_type(const GroupQuantizer& quantizer) {
  return quantizer.store == GroupStore::F16 ? at::kHalf : at::kFloat;
}

PackedRows packed(const RtnKv& method, const CacheShape& shape, KvRole role) {
  const bool blocks = method.per_channel(role);
  return PackedRows(shape.kv_heads, shape.head_dim, blocks ? PackedRows::Layout::Blocks : PackedRows::Layout::Runs,
                    blocks ? method.block() : method.token_group(shape.kv_heads * shape.head_dim), method.quantizer());
}

class RtnKvCache final : public StoreCache {
 public:
  RtnKvCache(const RtnKv& method, const CacheShape& shape)
      : StoreCache(shape, held_type(method.quantizer())),
        block_(method.per_channel(KvRole::Key) ? method.block() : 1),
        keys_(packed(method, shape, KvRole::Key)),
        values_(packed(method, shape, KvRole::Value)),
        open_block_(shape.kv_heads, shape.head_dim, held_type(method.quantizer())) {}

  TokenRange quantized(KvRole role) const override {
    return {0, role == KvRole::Key ? keys_.tokens() : values_.tokens()};
  }

 protected:
  Stores stores(KvRole role) const override {
    return role == KvRole::Key ? Stores{&keys_, &open_block_} : Stores{&values_};
  }

  void store_prompt(const float* key, const float* value, std::int64_t tokens) override {
    const std::int64_t whole = tokens / block_ * block_;
    keys_.append(key, whole);
    open_block_.append(key + whole * width(), tokens - whole);
    values_.append(value, tokens);
  }

  void before_attention(const float* key, const float* value) override {
    values_.append(value, 1);
    if (block_ == 1) {
      keys_.append(key, 1);
      return;
    }
    open_block_.append(key, 1);
    if (open_block_.tokens() < block_) return;
    std::vector<float> rows(static_cast<std::size_t>(block_ * width()));
    open_block_.read(0, block_, rows.data());
    keys_.append(rows.data(), block_);
    open_block_.clear();
  }

 private:
  std::int64_t block_;
  PackedRows keys_, values_;
  FloatRows open_block_;
};

}  // namespace

std::unique_ptr<KvCache> make_rtn_kv_cache(const RtnKv& method, const CacheShape& shape) {
  return std::make_unique<RtnKvCache>(method, shape);
}

}  // namespace qs
