#pragma once

#include "backend/methods/mpo.h"
#include "backend/methods/small_factor.h"
#include "backend/types/param_spec.h"

namespace qs {

/// DecoQuant (arXiv:2405.12591; KV specification, section 7): the cache matrix is factorised exactly, the large factor
/// is quantized (symmetric, one scale a token), the small one stays in 16 bits; outliers migrate into it.
///
/// split_hidden: a token's channels are cut into blocks of n2^(factors - 1), which divides head_dim; the small factor
/// is factors - 1 tensors. channel_by_token: the transposed matrix, one scale a channel; for comparison only.
///
/// Streaming (7.5): the prompt is one segment, decomposed once; new tokens wait in full precision and become a segment
/// of their own, flush_len at a time, after the attention of a step.
class Decoquant final : public KvMethod {
 public:
  enum class Mode { SplitHidden, ChannelByToken };

  /// @throws Error InvalidArgument for widths other than 2, 4 and 8
  explicit Decoquant(const ParamSet& params);

  /// `x` as the prompt. codes: of the large factor, at the place of the channel they stand for; scale: [tokens], or
  /// [kv_heads * head_dim] by channel
  QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const override;
  QuantizedTensor quantize_stream(const KvPrompt& prompt, KvRole role, const JobContext& job) const override;
  TokenRange seen_by_query(KvRole role, std::int64_t position) const override;
  TokenRange after_prefill(KvRole role, std::int64_t tokens) const override;
  at::Tensor held_in_full_precision(const at::Tensor& x) const override;
  std::string cannot_stream() const override;
  ScaleGroups scale_groups(KvRole role, const CacheShape& shape) const override;
  std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const override;
  double effective_bits(const CacheShape& shape, std::int64_t tokens) const override;  ///< of a prompt of `tokens`
  void check_fits(const CacheShape& shape) const override;

  Mode mode() const { return mode_; }
  std::int64_t flush_len() const { return flush_len_; }
  std::int64_t block() const;                  ///< channels of a block: n2^(factors - 1)
  std::int64_t small_factor_elements() const;  ///< of one segment, split_hidden
  const GroupQuantizer& quantizer() const { return quantizer_; }

  /// One segment decomposed. @param rows  f32 [tokens, channels] as the cache holds it
  struct Segment {
    TwoFactors factors;  ///< large: [tokens * channels / block, block]
    SmallFactor small;
  };
  Segment decompose(const at::Tensor& rows) const;
  /// A token matrix f32 [tokens, channels] as one segment; values, codes and scale as described above.
  GroupCodes quantize_matrix(const at::Tensor& rows) const;

 private:
  GroupCodes quantize_channels(const at::Tensor& rows) const;
  /// @param ends  of the segments, in tokens; what lies behind the last one is held
  QuantizedTensor quantize_segments(const at::Tensor& x, const std::vector<std::int64_t>& ends,
                                    const JobContext& job) const;

  GroupQuantizer quantizer_;
  Mode mode_ = Mode::SplitHidden;
  std::int64_t n1_ = 0, n2_ = 16, factors_ = 2, flush_len_ = 1024;
  bool local_remainder_ = false, force_ = false;
};

}  // namespace qs
