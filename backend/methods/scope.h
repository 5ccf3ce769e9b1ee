#pragma once

#include <memory>

#include "backend/methods/token_selection.h"
#include "backend/types/param_spec.h"

namespace qs {

class ScopeCache;

/// SCOPE (arXiv:2412.13649; KV specification, section 9): selects tokens instead of quantizing them. The prompt is cut
/// once and then protected; of the tokens decoded since only heavy hitters and the newest stay. Works on the cache of
/// another method, each KV head with tokens of its own.
class Scope final : public KvMethod {
 public:
  /// @param base  the method whose cache is selected from; null: full precision in the type of `store`
  /// @throws Error InvalidArgument when parameters contradict each other
  explicit Scope(const ParamSet& params, std::shared_ptr<const KvMethod> base = nullptr);

  /// The base's, without selection: what it makes of tokens that stay.
  QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const override;
  QuantizedTensor quantize_prompt(const KvPrompt& prompt, KvRole role, const JobContext& job) const override;
  at::Tensor kept_after_prompt(const KvPrompt& prompt) const override;
  bool depends_on_attention() const override;
  /// The base's, of slots.
  TokenRange seen_by_query(KvRole role, std::int64_t position) const override;
  TokenRange after_prefill(KvRole role, std::int64_t tokens) const override;
  KeyDomain key_domain() const override { return base_->key_domain(); }
  at::Tensor held_in_full_precision(const at::Tensor& x) const override { return base_->held_in_full_precision(x); }
  ScaleGroups scale_groups(KvRole role, const CacheShape& shape) const override {
    return base_->scale_groups(role, shape);
  }
  std::string cannot_stream() const override { return base_->cannot_stream(); }
  std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const override;
  std::unique_ptr<ScopeCache> make_scope_cache(const CacheShape& shape) const;
  /// Of a token that is held, its position included.
  double effective_bits(const CacheShape& shape, std::int64_t tokens) const override;
  void check_fits(const CacheShape& shape) const override;

  const SelectionOptions& options() const { return options_; }

 private:
  SelectionOptions options_;
  bool compact_ = false;
  std::shared_ptr<const KvMethod> base_;
};

}  // namespace qs
