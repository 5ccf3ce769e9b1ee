#pragma once

#include "backend/methods/kv_groups.h"
#include "backend/types/param_spec.h"

namespace qs {

/// Round-to-nearest baselines (KV specification, section 3). No window: a token is quantized as it arrives and
/// attention sees it quantized; with blocked channel keys the tokens of the unfinished block stay in full precision.
class RtnKv final : public KvMethod {
 public:
  enum class Scheme { TokenAsym, ChannelAsym, TokenSym };

  /// @throws Error InvalidArgument for a code width that the scheme does not have
  explicit RtnKv(const ParamSet& params);

  /// scale and group_min of per-token groups: [tokens, kv_heads * head_dim / group]; of channel keys:
  /// [kv_heads, tokens / block, head_dim]
  QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const override;
  TokenRange seen_by_query(KvRole role, std::int64_t position) const override;
  TokenRange after_prefill(KvRole role, std::int64_t tokens) const override;
  at::Tensor held_in_full_precision(const at::Tensor& x) const override;
  std::string cannot_stream() const override;
  ScaleGroups scale_groups(KvRole role, const CacheShape& shape) const override;
  std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const override;
  double effective_bits(const CacheShape& shape, std::int64_t tokens) const override;
  void check_fits(const CacheShape& shape) const override;

  Scheme scheme() const { return scheme_; }
  const GroupQuantizer& quantizer() const { return quantizer_; }
  bool per_channel(KvRole role) const { return scheme_ == Scheme::ChannelAsym && role == KvRole::Key; }
  /// Channels of one per-token group. @param width  kv_heads * head_dim
  std::int64_t token_group(std::int64_t width) const;
  std::int64_t block() const { return group_size_; }  ///< tokens of a channel group; 0: all tokens

 private:
  Scheme scheme_ = Scheme::TokenAsym;
  GroupQuantizer quantizer_;
  std::int64_t group_size_ = 128;
};

}  // namespace qs
