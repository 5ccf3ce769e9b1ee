#pragma once

#include <optional>
#include <vector>

#include "backend/methods/kv_groups.h"
#include "backend/types/param_spec.h"

namespace qs {

enum class NuqDatatype { Nuq, NormalFloat, Uniform };

struct KvquantSettings {
  int bits = 4;
  NuqDatatype datatype = NuqDatatype::Nuq;
  double outliers = 0.01;              ///< share of a vector kept exact, both sides together; 0: no sparse part
  std::int64_t first_tokens = 1;       ///< of the sequence, kept in f16
  bool q_norm = false;                 ///< restores mean and deviation of the levels
  std::int64_t cap_per_side = 0;       ///< key outliers of a token and side; 0: no cap, -1: ceil(0.0051 * channels)
  bool fisher_scale = true;            ///< calibration weighs by F * h^2 (paper) instead of F (code)
  bool integer_zero = false;           ///< Uniform, values only: offset rounded, clamped to -(2^bits - 1) .. 0
  GroupStore store = GroupStore::F16;  ///< of a value token's midpoint and half-range

  /// @throws Error InvalidArgument for settings that no artifact makes sense with
  static KvquantSettings from(const ParamSet& params);
  std::int64_t cap(std::int64_t channels) const;  ///< cap_per_side with -1 resolved
  double kept_fraction() const { return 1.0 - outliers; }
  /// The percentile of the upper threshold; the lower one is 1 - this.
  double upper_fraction() const { return 1.0 - outliers / 2.0; }
  /// Most value outliers of a token and side: ranks beyond it are ties (KV specification 8.10).
  std::int64_t value_outliers_per_side(std::int64_t channels) const;
};

/// One side (keys or values) of a layer as it is coded: x = (level * gamma + delta) * half + middle.
struct NuqCoding {
  std::vector<float> levels;  ///< [2^bits] ascending: what codes are chosen by
  std::vector<float> table;   ///< [2^bits] levels * gamma + delta: what they decode to
  /// Keys: thresholds and what follows from them, one a channel; empty for values, which find theirs token by token.
  std::vector<float> lower, upper, middle, half;
  /// Midpoints and half-ranges from `lower` and `upper` (f16 values) by N1 with the f16 rule: sum and difference are
  /// rounded to f16 before they are halved. @throws Error InvalidArgument when one is not finite or they are crossed
  void set_thresholds();
  std::uint8_t zero_code() const;  ///< of the level nearest to 0; stands at the places of outliers
};

/// KVQuant (arXiv:2401.18079; KV specification, section 8): keys before rotation, per channel, with thresholds from
/// calibration; values per token; a fitted datatype a layer; outliers and the first tokens exact in f16.
///
/// Layer artifact: key_lower, key_upper f16 [channels]; key_levels, value_levels f32 [2^bits] (datatype nuq);
/// key_norm, value_norm f32 [2]: gamma, delta (absent: 1, 0); outliers f64 [1]: the share the thresholds were made
/// for; key_outlier_share f64 [1]: the share they had on the calibration tokens.
class Kvquant final : public KvMethod {
 public:
  /// @throws Error InvalidArgument when the artifact was made for other settings
  Kvquant(const ParamSet& params, const KvLayerArtifact* artifact);

  /// scale: half-range, group_min: midpoint of the normalisation; keys [channels], values [tokens]. Token 0 of x is the
  /// first of the sequence.
  QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const override;
  TokenRange seen_by_query(KvRole role, std::int64_t position) const override;
  TokenRange after_prefill(KvRole role, std::int64_t tokens) const override;
  KeyDomain key_domain() const override { return KeyDomain::PreRope; }
  at::Tensor held_in_full_precision(const at::Tensor& x) const override;
  ScaleGroups scale_groups(KvRole role, const CacheShape& shape) const override;
  std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const override;
  double effective_bits(const CacheShape& shape, std::int64_t tokens) const override;
  void check_fits(const CacheShape& shape) const override;

  const KvquantSettings& settings() const { return settings_; }
  /// @throws Error InvalidArgument saying how to calibrate when this side is not calibrated
  const NuqCoding& coding(KvRole role) const;
  /// Bits of an element of one side at `tokens` tokens when a share `outlier_share` of the coded elements is sparse.
  /// Constants of the layer are not counted.
  double role_bits(KvRole role, std::int64_t channels, std::int64_t tokens, double outlier_share) const;
  /// Share of a side's coded elements that is expected to be sparse: keys as calibrated, values by rank.
  double outlier_share(KvRole role, std::int64_t channels) const;

 private:
  void read_artifact(const KvLayerArtifact& artifact);
  void check_channels(const CacheShape& shape) const;

  KvquantSettings settings_;
  std::optional<NuqCoding> keys_, values_;
  double key_outlier_share_ = 0.0;
};

/// The published count (KV specification 8.9): keys b + 32 phi + 32 / C + 32 / T, values b + 32 phi + 64 / C.
double kvquant_published_bits(KvRole role, int bits, double outlier_share, double channels, double tokens);

/// Calibration of one layer from its keys and values alone, one sequence (KV specification 8.5 without step 1): the
/// Fisher information of every element counts as 1.
KvLayerArtifact calibrate_kvquant_layer(const KvPrompt& prompt, const ParamSet& params, std::uint64_t seed);

/// The whole calibration (KV specification 8.5), with gradients of the language-model loss.
std::vector<KvLayerArtifact> calibrate_kvquant(const KvCalibrationInput& input, const ParamSet& params,
                                               const JobContext& job);

}  // namespace qs
