#pragma once

#include <optional>

#include "backend/methods/channel_groups.h"
#include "backend/methods/grouped_rows.h"
#include "backend/types/param_spec.h"

namespace qs {

/// SKVQ (arXiv:2405.06219; KV specification, section 5): keys and values per token in groups of channels that a
/// calibration made homogeneous, a clipped range, the newest tokens and the attention sinks in full precision.
///
/// Artifact of a layer: k_order, v_order int32 [width] and k_start, v_start int32 [groups + 1] (with reorder);
/// k_clip, v_clip float16 [1] or [groups] (with a searched clip); k_smooth, v_smooth float32 [width] (with smooth).
class Skvq final : public KvMethod {
 public:
  /// Which tokens behind the window stay in full precision besides (section 11: h2o and random).
  enum class Keep { None, Attention, Random };

  /// @throws Error InvalidArgument for parameters that exclude each other, or an artifact that cannot be one
  Skvq(const ParamSet& params, const KvLayerArtifact* artifact);

  /// scale and group_min: [tokens, groups]
  QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const override;
  QuantizedTensor quantize_prompt(const KvPrompt& prompt, KvRole role, const JobContext& job) const override;
  bool depends_on_attention() const override { return keep_ == Keep::Attention; }
  TokenRange seen_by_query(KvRole role, std::int64_t position) const override;
  TokenRange after_prefill(KvRole role, std::int64_t tokens) const override;
  KeyDomain key_domain() const override { return pre_rope_ ? KeyDomain::PreRope : KeyDomain::PostRope; }
  at::Tensor held_in_full_precision(const at::Tensor& x) const override;
  std::string cannot_stream() const override;
  ScaleGroups scale_groups(KvRole role, const CacheShape& shape) const override;
  std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const override;
  double effective_bits(const CacheShape& shape, std::int64_t tokens) const override;
  void check_fits(const CacheShape& shape) const override;

  bool off(KvRole role) const { return side(role).bits == 16.0; }
  std::int64_t window() const { return window_; }
  std::int64_t sink_tokens() const { return sink_tokens_; }
  std::int64_t group_size() const { return group_size_; }
  CodeContainer container(KvRole role) const;
  /// Bits of a quantized element as published: 1.5 counts as 1.5, plus scale and minimum over the mean group (5.9).
  double nominal_bits(KvRole role, std::int64_t width) const;
  /// Bits of a quantized element as stored.
  double stored_bits(KvRole role, std::int64_t kv_heads, std::int64_t head_dim) const;
  at::ScalarType held_type() const { return store_ == ParameterType::F32 ? at::kFloat : at::kHalf; }
  /// The quantizer for a token of `width` channels. @throws Error InvalidArgument when a calibration is missing or made
  /// for another width
  SkvqQuantizer quantizer(KvRole role, std::int64_t width) const;

 private:
  struct Side {
    double bits = 2.0;
    std::optional<ChannelGroups> groups;  ///< of the artifact
    std::vector<float> clip, smooth;      ///< of the artifact; empty: none
  };
  const Side& side(KvRole role) const { return role == KvRole::Key ? key_ : value_; }
  void read_artifact(const KvLayerArtifact& artifact);
  double groups_of(KvRole role, std::int64_t width) const;
  double role_bits(KvRole role, const CacheShape& shape, std::int64_t tokens) const;

  Side key_, value_;
  std::int64_t group_size_ = 128, window_ = 128, sink_tokens_ = 5;
  bool reorder_ = true, smooth_ = false, pre_rope_ = true, centre_clip_ = false, rounded_codes_ = false;
  bool two_bit_container_ = false, searches_clip_ = false, calibrated_ = false;
  double clip_ = 0.92, quantized_share_ = 1.0;
  Keep keep_ = Keep::None;
  GroupCompute compute_ = GroupCompute::F32;
  ParameterType store_ = ParameterType::F16;
};

/// Whether these parameters of skvq learn from a calibration: reorder, smooth or a searched clip.
bool skvq_needs_artifact(const ParamSet& params);

/// A cache of this method; check_fits has passed.
std::unique_ptr<KvCache> make_skvq_cache(const Skvq& method, const CacheShape& shape);

}  // namespace qs
