#pragma once

#include "backend/methods/qaq_quantizer.h"
#include "backend/types/param_spec.h"

namespace qs {

/// Vectors quantized by QAQ with everything that a comparison wants to see.
struct QaqTensor {
  at::Tensor values;       ///< f32, shape of the input
  at::Tensor codes;        ///< int16, shape of the input; 0 at outliers
  at::Tensor outliers;     ///< bool, shape of the input
  at::Tensor bits;         ///< i32, one a vector
  at::Tensor scale, mean;  ///< f32 as stored, one a vector
};
/// @param vectors    f32 [count, length]
/// @param tolerance  f64 [count] of Q4 or Q5; undefined when widths do not follow attention
QaqTensor qaq_quantize(const QaqSettings& settings, const at::Tensor& vectors, const at::Tensor& tolerance);

/// Softmax attention of the last queries of a sequence, the largest over the query heads that read a KV head.
/// @param query  the last rows, rotated [heads, rows, head_dim]; key  [kv_heads, tokens, head_dim]
/// @return f32 [kv_heads, rows, tokens]
at::Tensor qaq_attention_rows(const at::Tensor& query, const at::Tensor& key, const CacheShape& shape);

/// QAQ (arXiv:2403.04643; KV specification, section 6): mixed precision per vector. Outliers stay as they are, the
/// width of the rest follows an error budget: of keys by the query energy, of values by recent attention.
///
/// Streaming (6.7): the newest `last_n_attentions` tokens wait in full precision; a token's width is fixed when it
/// leaves them. Without queries (`quantize`, or a cache whose prompt was not observed) attention is unknown and values
/// get the largest width.
class Qaq final : public KvMethod {
 public:
  /// @throws Error InvalidArgument for n_bits_min > n_bits_max, or the normal quantizer with attention-aware widths
  explicit Qaq(const ParamSet& params);

  /// scale and group_min (the mean): [kv_heads, tokens], or [tokens] for level=layer
  /// @throws Error Unsupported for level=token, which needs all layers at once
  QuantizedTensor quantize(const at::Tensor& x, KvRole role, const JobContext& job) const override;
  QuantizedTensor quantize_prompt(const KvPrompt& prompt, KvRole role, const JobContext& job) const override;
  bool depends_on_attention() const override { return settings_.use_attentions; }
  TokenRange seen_by_query(KvRole role, std::int64_t position) const override;
  TokenRange after_prefill(KvRole role, std::int64_t tokens) const override;
  at::Tensor held_in_full_precision(const at::Tensor& x) const override;
  std::string cannot_stream() const override;
  ScaleGroups scale_groups(KvRole role, const CacheShape& shape) const override;
  std::unique_ptr<KvCache> make_cache(const CacheShape& shape) const override;
  /// As allocated for vectors of the largest width without ties among outliers: an upper bound when widths follow
  /// attention.
  double effective_bits(const CacheShape& shape, std::int64_t tokens) const override;
  void check_fits(const CacheShape& shape) const override;

  const QaqSettings& settings() const { return settings_; }
  std::int64_t window() const { return settings_.use_attentions ? settings_.last_n : 0; }
  /// Bits of an element as published: indices and widths are left out, outliers counted as the ratio says.
  double nominal_bits(double mean_bits, std::int64_t vector) const;
  /// Bits of an element with everything: real outliers, their indices, parameters, widths.
  double stored_bits(double mean_bits, double mean_outliers, std::int64_t vector) const;

 private:
  QuantizedTensor quantize_vectors(const at::Tensor& x, const at::Tensor& tolerance) const;
  at::Tensor tolerances(const at::Tensor& x, KvRole role, const at::Tensor& attention) const;

  QaqSettings settings_;
};

}  // namespace qs
