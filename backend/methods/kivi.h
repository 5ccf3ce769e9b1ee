#pragma once

#include "backend/methods/kv_groups.h"
#include "backend/types/param_spec.h"

namespace qs {

/// KIVI (arXiv:2402.02750; KV specification, section 4): keys per channel in blocks of `group_size` tokens, values per
/// token in runs of `group_size` channels of a head, both asymmetric, the newest tokens in full precision.
class Kivi final : public KvMethod {
 public:
  /// @throws Error InvalidArgument for a residual length that is no multiple of the group size, or 5 to 7 bits
  explicit Kivi(const ParamSet& params);

  /// scale and group_min of keys: [kv_heads, tokens / group_size, head_dim]; of values: [kv_heads, tokens, head_dim /
  /// group_size]
  QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const override;
  TokenRange seen_by_query(KvRole role, std::int64_t position) const override;
  TokenRange after_prefill(KvRole role, std::int64_t tokens) const override;
  at::Tensor held_in_full_precision(const at::Tensor& x) const override;
  ScaleGroups scale_groups(KvRole role, const CacheShape& shape) const override;
  std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const override;
  double effective_bits(const CacheShape& shape, std::int64_t tokens) const override;
  void check_fits(const CacheShape& shape) const override;

  double element_bits(KvRole role) const;  ///< of a quantized element: bits + 32 / group_size with f16 parameters
  /// Bits of an element of keys or values at `tokens` tokens, residual included.
  double role_bits(KvRole role, std::int64_t tokens) const;
  const GroupQuantizer& quantizer(KvRole role) const { return role == KvRole::Key ? key_quantizer_ : value_quantizer_; }
  std::int64_t group_size() const { return group_size_; }
  std::int64_t residual_length() const { return residual_length_; }

 private:
  GroupQuantizer key_quantizer_, value_quantizer_;
  std::int64_t group_size_ = 32;
  std::int64_t residual_length_ = 128;
};

}  // namespace qs
