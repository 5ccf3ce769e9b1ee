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
        group_size_(method.group_size()),
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

  /// A key block leaves when all of its tokens are dead and their values are packed too. Compaction then makes one
  /// block of two neighbours whose live tokens fit into one; tokens that are dead fill it up. Values move as they are.
  Reclaimed release(const std::vector<std::uint8_t>& dead, bool compact) override {
    Reclaimed reclaimed;
    const std::int64_t blocks = std::min(keys_.tokens(), values_.tokens()) / group_size_;
    std::int64_t gone = 0;  // tokens that have left before the block at hand
    for (std::int64_t block = 0; block < blocks; ++block) {
      const std::int64_t begin = block * group_size_;
      if (count_dead(dead, begin, group_size_) == group_size_) {
        drop_all(begin, group_size_, gone, reclaimed);
        gone += group_size_;
      } else if (compact && block + 1 < blocks && count_dead(dead, begin, 2 * group_size_) >= group_size_ &&
                 count_dead(dead, begin + group_size_, group_size_) < group_size_) {
        merge_pair(dead, begin, gone, reclaimed);
        gone += group_size_;
        ++block;
      }
    }
    return reclaimed;
  }

 private:
  static std::int64_t count_dead(const std::vector<std::uint8_t>& dead, std::int64_t begin, std::int64_t tokens) {
    return std::count(dead.begin() + begin, dead.begin() + begin + tokens, 1);
  }

  void drop_all(std::int64_t begin, std::int64_t tokens, std::int64_t gone, Reclaimed& reclaimed) {
    for (std::int64_t token = begin; token < begin + tokens; ++token) reclaimed.tokens.push_back(token);
    keys_.erase(begin - gone, tokens);
    values_.erase(begin - gone, tokens);
  }

  void merge_pair(const std::vector<std::uint8_t>& dead, std::int64_t begin, std::int64_t gone, Reclaimed& reclaimed) {
    std::vector<float> rows(static_cast<std::size_t>(2 * group_size_ * width()));
    for (std::int64_t head = 0; head < shape().kv_heads; ++head) {
      keys_.decode(head, begin - gone, begin - gone + 2 * group_size_, rows.data() + head * shape().head_dim, width());
    }
    std::int64_t kept = 0, left = group_size_;  // `left`: dead tokens that still have to leave
    for (std::int64_t token = 0; token < 2 * group_size_; ++token) {
      if (dead[static_cast<std::size_t>(begin + token)] != 0 && left > 0) {
        --left;
        reclaimed.tokens.push_back(begin + token);
        values_.erase(begin - gone + kept, 1);
        continue;
      }
      reclaimed.requantized += dead[static_cast<std::size_t>(begin + token)] == 0;
      std::copy_n(rows.begin() + token * width(), width(), rows.begin() + kept++ * width());
    }
    keys_.replace(begin - gone, rows.data());
    keys_.erase(begin - gone + group_size_, group_size_);
  }

  std::int64_t group_size_, residual_length_;
  PackedRows keys_, values_;
  FloatRows key_residual_, value_residual_, newest_value_;
};

}  // namespace

std::unique_ptr<KvCache> make_kivi_cache(const Kivi& method, const CacheShape& shape) {
  return std::make_unique<KiviCache>(method, shape);
}

}  // namespace qs
