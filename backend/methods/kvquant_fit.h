#pragma once

#include <vector>

#include "backend/methods/nuq.h"
#include "backend/methods/nuq_matrix.h"

namespace qs {

/// [kv_heads, tokens, head_dim] as the cache holds it, as the token matrix f32 [tokens, C].
at::Tensor calibration_matrix(const at::Tensor& x);

/// Percentiles of key channels over all calibration tokens (KV specification 8.3), from the tails alone: memory does
/// not grow with the text.
class KeyTails {
 public:
  KeyTails(std::int64_t tokens, double upper_fraction);
  void add(const at::Tensor& x);  ///< [tokens, C]
  /// f16 [C]; only after all tokens were added.
  at::Tensor upper() const;
  at::Tensor lower() const;

 private:
  double upper_at_ = 0.0, lower_at_ = 0.0;  ///< fractional rank
  std::int64_t highest_kept_ = 0, lowest_kept_ = 0;
  at::Tensor highest_, lowest_;
};

/// Normalised inliers of one side of a layer in bins of [-1, 1], weighted by sensitivity and counted.
class LevelFit {
 public:
  LevelFit();
  /// The first tokens and the outliers of `m` are left out. @param fisher  squared gradients [T, C]; undefined: all 1
  void add(const TokenMatrix& m, const at::Tensor& fisher, const KvquantSettings& settings);
  std::vector<double> levels(int bits) const;  ///< weighted k-means over the bins
  /// Q-Norm: gamma and delta, f32 [2], that give the levels the mean and deviation of the elements they stand for.
  at::Tensor norm(const std::vector<double>& levels) const;
  double outlier_share() const { return elements_ > 0.0 ? outliers_ / elements_ : 0.0; }

 private:
  std::vector<double> weight_, first_, second_, count_, sum_, squares_;
  double elements_ = 0.0, outliers_ = 0.0;
};

/// What a layer gathers: key thresholds first, then the fit of both sides.
class LayerCalibration {
 public:
  LayerCalibration(std::int64_t tokens, const KvquantSettings& settings)
      : settings_(settings), tails_(tokens, settings.upper_fraction()) {}
  void add_keys(const at::Tensor& key) { tails_.add(calibration_matrix(key)); }
  void fix_thresholds();
  /// One sequence. @param key, value  [kv_heads, tokens, head_dim]; the gradients like them, undefined: Fisher
  ///        information of 1
  void fit(const at::Tensor& key, const at::Tensor& value, const at::Tensor& key_gradient,
           const at::Tensor& value_gradient);
  KvLayerArtifact artifact() const;

 private:
  KvquantSettings settings_;
  KeyTails tails_;
  NuqCoding coding_;
  at::Tensor lower_, upper_;
  LevelFit key_fit_, value_fit_;
};

}  // namespace qs
