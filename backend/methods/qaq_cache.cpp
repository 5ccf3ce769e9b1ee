#include "backend/methods/qaq_cache.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "backend/methods/kv_cache_base.h"
#include "backend/methods/qaq_rows.h"

namespace qs {
namespace {

at::ScalarType held_type(const QaqSettings& settings) {
  return settings.store == GroupStore::F16 ? at::kHalf : at::kFloat;
}

class QaqCache final : public StoreCache {
 public:
  QaqCache(const Qaq& method, const CacheShape& shape)
      : StoreCache(shape, held_type(method.settings())),
        settings_(method.settings()),
        window_(method.window()),
        keys_(shape.kv_heads, shape.head_dim, method.settings()),
        values_(shape.kv_heads, shape.head_dim, method.settings()),
        key_window_(shape.kv_heads, shape.head_dim, held_type(method.settings()), window_),
        value_window_(shape.kv_heads, shape.head_dim, held_type(method.settings()), window_),
        newest_key_(shape.kv_heads, shape.head_dim, held_type(method.settings())),
        newest_value_(shape.kv_heads, shape.head_dim, held_type(method.settings())) {}

  void observe_prompt(const at::Tensor& query) override {
    const std::int64_t tokens = query.size(1), rows = std::min(tokens, window_);
    if (rows > 0) last_queries_ = query.narrow(1, tokens - rows, rows).to(at::kFloat).clone();
  }

  TokenRange quantized(KvRole role) const override {
    return {0, role == KvRole::Key ? keys_.tokens() : values_.tokens()};
  }

 protected:
  Stores stores(KvRole role) const override {
    if (role == KvRole::Key) return {&keys_, &key_window_, &newest_key_};
    return {&values_, &value_window_, &newest_value_};
  }

  void store_prompt(const float* key, const float* value, std::int64_t tokens) override {
    const std::int64_t quantized = std::max<std::int64_t>(0, tokens - window_);
    const std::vector<float> paid = attention_of_prompt(key, tokens);
    keys_.append(key, key_tolerances(quantized, tokens).data(), quantized);
    values_.append(value, value_tolerances(paid, quantized, tokens).data(), quantized);
    key_window_.append(key + quantized * width(), tokens - quantized);
    value_window_.append(value + quantized * width(), tokens - quantized);
    last_queries_.reset();
  }

  void before_attention(const float* key, const float* value) override {
    newest_key_.append(key, 1);
    newest_value_.append(value, 1);
    weights_.first_token = keys_.tokens();
    weights_.weights.clear();
  }

  AttentionWeights* wanted_weights() override { return settings_.use_attentions ? &weights_ : nullptr; }

  void after_attention() override {
    std::vector<float> key(static_cast<std::size_t>(width())), value(key);
    if (settings_.use_attentions) count_step();
    if (window_ == 0) {
      newest_key_.read(0, 1, key.data());
      newest_value_.read(0, 1, value.data());
      keys_.append(key.data(), nullptr, 1);
      values_.append(value.data(), nullptr, 1);
    } else {
      if (key_window_.tokens() == window_) {
        key_window_.read(0, 1, key.data());
        value_window_.read(0, 1, value.data());
        keys_.append(key.data(), key_tolerances(1, tokens()).data(), 1);
        values_.append(value.data(), value_tolerances(recent_, 1, tokens()).data(), 1);
        if (settings_.use_attentions) recent_.erase(recent_.begin(), recent_.begin() + shape().kv_heads);
      }
      newest_key_.read(0, 1, key.data());
      newest_value_.read(0, 1, value.data());
      key_window_.append(key.data(), 1);
      value_window_.append(value.data(), 1);
      if (settings_.use_attentions) recent_.resize(recent_.size() + static_cast<std::size_t>(shape().kv_heads), 0.0f);
    }
    newest_key_.clear();
    newest_value_.clear();
  }

 private:
  /// Largest attention of the last queries: of the tokens to quantize [tokens][kv_heads], and in `recent_` of those
  /// that wait, from the queries behind each of them. Empty when the prompt's queries are not known.
  std::vector<float> attention_of_prompt(const float* key, std::int64_t tokens) {
    recent_.clear();
    if (!settings_.use_attentions) return {};
    const std::int64_t quantized = std::max<std::int64_t>(0, tokens - window_), kv_heads = shape().kv_heads;
    recent_.assign(static_cast<std::size_t>((tokens - quantized) * kv_heads), 0.0f);
    if (!last_queries_.defined() || tokens < last_queries_.size(1)) {
      // Steps are missing for all but the newest token: the largest width, like all that was not seen.
      const std::int64_t unknown = std::max<std::int64_t>(0, tokens - quantized - 1) * kv_heads;
      std::fill_n(recent_.begin(), unknown, std::numeric_limits<float>::infinity());
      return {};
    }
    const at::Tensor keys =
        at::from_blob(const_cast<float*>(key), {tokens, kv_heads, shape().head_dim}).transpose(0, 1).contiguous();
    const at::Tensor rows = qaq_attention_rows(last_queries_, keys, shape());
    const at::Tensor paid = rows.narrow(2, 0, quantized).amax(1).t().contiguous();
    const std::int64_t first = tokens - rows.size(1);
    for (std::int64_t token = std::max(quantized, first); token + 1 < tokens; ++token) {
      const at::Tensor later =
          rows.select(2, token).narrow(1, token + 1 - first, tokens - token - 1).amax(1).contiguous();
      std::copy_n(later.data_ptr<float>(), kv_heads, recent_.begin() + (token - quantized) * kv_heads);
    }
    return {paid.data_ptr<float>(), paid.data_ptr<float>() + paid.numel()};
  }

  /// Adds the attention of this step to the maxima of the tokens that wait. A step whose weights went elsewhere (token
  /// selection around this cache) is unknown: then the largest width.
  void count_step() {
    const std::int64_t kv_heads = shape().kv_heads, group = shape().heads / kv_heads;
    const auto waiting = static_cast<std::int64_t>(recent_.size()) / kv_heads, stride = waiting + 1;
    if (static_cast<std::int64_t>(weights_.weights.size()) != shape().heads * stride) {
      std::fill(recent_.begin(), recent_.end(), std::numeric_limits<float>::infinity());
      return;
    }
    for (std::int64_t head = 0; head < shape().heads; ++head) {
      for (std::int64_t t = 0; t < waiting; ++t) {
        float& largest = recent_[static_cast<std::size_t>(t * kv_heads + head / group)];
        largest = std::max(largest, weights_.weights[static_cast<std::size_t>(head * stride + t)]);
      }
    }
  }

  std::vector<double> key_tolerances(std::int64_t count, std::int64_t tokens) const {
    return std::vector<double>(static_cast<std::size_t>(count * keys_.lanes()), qaq_key_tolerance(settings_, tokens));
  }

  /// @param paid  [count or more][kv_heads]; empty: attention is not known
  std::vector<double> value_tolerances(const std::vector<float>& paid, std::int64_t count, std::int64_t tokens) const {
    std::vector<double> limits(static_cast<std::size_t>(count * values_.lanes()), 0.0);
    if (paid.empty()) return limits;
    const std::int64_t kv_heads = shape().kv_heads, together = kv_heads / values_.lanes();
    for (std::size_t i = 0; i < limits.size(); ++i) {
      const auto first = paid.begin() + static_cast<std::ptrdiff_t>(i) * together;
      limits[i] = qaq_value_tolerance(settings_, tokens, *std::max_element(first, first + together));
    }
    return limits;
  }

  QaqSettings settings_;
  std::int64_t window_;
  QaqRows keys_, values_;
  FloatRows key_window_, value_window_, newest_key_, newest_value_;
  at::Tensor last_queries_;  ///< [heads, rows, head_dim], between observe_prompt and prefill
  /// Largest attention of the steps after each token of the window, [token][kv_heads]. A token has last_n of them when
  /// it leaves, so the running maximum is that of the last last_n steps.
  std::vector<float> recent_;
  AttentionWeights weights_;
};

}  // namespace

std::unique_ptr<KvCache> make_qaq_cache(const Qaq& method, const CacheShape& shape) {
  return std::make_unique<QaqCache>(method, shape);
}

}  // namespace qs
