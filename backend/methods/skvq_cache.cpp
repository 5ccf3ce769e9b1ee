#include <algorithm>

#include "backend/methods/kv_cache_base.h"
#include "backend/methods/skvq.h"

namespace qs {
namespace {

/// Keys or values of one layer in three segments, in token order: sinks, quantized tokens, window.
class SkvqSide {
 public:
  SkvqSide(const Skvq& method, KvRole role, const CacheShape& shape)
      : width_(shape.kv_heads * shape.head_dim),
        window_(method.window()),
        sink_(shape.kv_heads, shape.head_dim, method.held_type()),
        recent_(shape.kv_heads, shape.head_dim, method.held_type(), std::max<std::int64_t>(1, method.window())) {
    if (method.off(role)) {
      whole_ = std::make_unique<FloatRows>(shape.kv_heads, shape.head_dim, method.held_type());
      return;
    }
    quantizer_ = std::make_unique<SkvqQuantizer>(method.quantizer(role, width_));
    packed_ = std::make_unique<GroupedRows>(shape.kv_heads, shape.head_dim, method.container(role), *quantizer_);
  }

  std::vector<const TokenStore*> stores() const {
    if (whole_) return {whole_.get()};
    return {&sink_, packed_.get(), &recent_};
  }

  void store_prompt(const float* rows, std::int64_t tokens, TokenRange quantized) {
    if (whole_) return whole_->append(rows, tokens);
    const std::int64_t first = std::min(quantized.begin, tokens), end = first + quantized.size();
    sink_.append(rows, first);
    packed_->append(rows + first * width_, end - first);
    if (end < tokens) recent_.append(rows + end * width_, tokens - end);
  }

  void add(const float* row, std::int64_t sink_tokens) {
    if (whole_) return whole_->append(row, 1);
    if (sink_.tokens() > 0 && sink_.tokens() < sink_tokens) return sink_.append(row, 1);
    if (window_ == 0) return packed_->append(row, 1);
    if (recent_.tokens() == window_) {
      std::vector<float> oldest(static_cast<std::size_t>(width_));
      recent_.read(0, 1, oldest.data());
      packed_->append(oldest.data(), 1);
    }
    recent_.append(row, 1);
  }

  TokenRange quantized() const {
    if (whole_) return {};
    return {sink_.tokens(), sink_.tokens() + packed_->tokens()};
  }

 private:
  std::int64_t width_, window_;
  std::unique_ptr<SkvqQuantizer> quantizer_;
  std::unique_ptr<GroupedRows> packed_;
  std::unique_ptr<FloatRows> whole_;  ///< everything, when this side is not quantized
  FloatRows sink_, recent_;
};

class SkvqCache final : public StoreCache {
 public:
  SkvqCache(const Skvq& method, const CacheShape& shape)
      : StoreCache(shape, method.held_type(), method.key_domain()),
        sink_tokens_(method.sink_tokens()),
        window_(method.window()),
        keys_(method, KvRole::Key, shape),
        values_(method, KvRole::Value, shape) {}

  TokenRange quantized(KvRole role) const override { return side(role).quantized(); }

 protected:
  Stores stores(KvRole role) const override { return side(role).stores(); }

  void store_prompt(const float* key, const float* value, std::int64_t tokens) override {
    const TokenRange range{sink_tokens_, std::max(sink_tokens_, tokens - window_)};
    keys_.store_prompt(key, tokens, range);
    values_.store_prompt(value, tokens, range);
  }

  void before_attention(const float* key, const float* value) override {
    keys_.add(key, sink_tokens_);
    values_.add(value, sink_tokens_);
  }

 private:
  const SkvqSide& side(KvRole role) const { return role == KvRole::Key ? keys_ : values_; }

  std::int64_t sink_tokens_, window_;
  SkvqSide keys_, values_;
};

}  // namespace

std::unique_ptr<KvCache> make_skvq_cache(const Skvq& method, const CacheShape& shape) {
  return std::make_unique<SkvqCache>(method, shape);
}

}  // namespace qs
