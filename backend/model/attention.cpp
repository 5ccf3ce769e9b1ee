#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/model/affine_range.h"
#include "backend/model/decoder.h"
#include "backend/model/matmul.h"
#include "backend/types/error.h"

namespace qs {
namespace {

/// Scores held at once, so that a long window needs no tokens x tokens matrix.
constexpr std::int64_t kMaxScores = std::int64_t{1} << 24;

void check_shapes(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const bool fits = query.dim() == 3 && key.dim() == 3 && value.sizes() == key.sizes() &&
                    query.size(2) == key.size(2) && key.size(0) > 0 && query.size(0) % key.size(0) == 0 &&
                    query.size(1) <= key.size(1);
  if (!fits)
    throw Error(ErrorCode::InvalidArgument,
                "Attention needs query [heads, queries, head_dim] and key, value [kv_heads, keys, head_dim] with heads "
                "a multiple of "
                "kv_heads and no more queries than keys.");
}

constexpr double kHidden = -std::numeric_limits<double>::infinity();

/// A1 (weights specification, section 3), on f32 rows. @param maximum  above 0: of a fixed range, which is clamped to
at::Tensor absmax_values(const at::Tensor& rows, int bits, double maximum) {
  const double levels = static_cast<double>((1 << (bits - 1)) - 1);
  if (maximum > 0.0) {
    const double scale = maximum / levels;
    return at::round(rows / scale).clamp_(-levels, levels).mul_(scale);
  }
  const at::Tensor scale = at::amax(rows.abs(), {-1}, true).clamp_min(1e-5) / levels;
  return at::round(rows / scale).mul_(scale);
}

/// Quantizes and dequantizes an operand; ranges run over the last axis.
/// @param maximum  of a fixed range; 0: found in x
at::Tensor quantize_operand(const at::Tensor& x, const AttentionQuantization& quantization, double maximum) {
  const at::Tensor wide = x.to(at::kFloat).contiguous();
  const at::Tensor rows = quantization.per_tensor ? wide.view({1, -1}) : wide;
  const at::Tensor values = quantization.absmax ? absmax_values(rows, quantization.bits, maximum)
                                                : fake_quantize(rows, quantization.bits, quantization.symmetric);
  return values.view(x.sizes()).to(x.scalar_type());
}

at::Tensor quantize_probabilities(const at::Tensor& x, const AttentionQuantization& quantization) {
  if (!quantization.per_tensor) return quantize_operand(x, quantization, 0.0);
  const at::Tensor wide = x.to(at::kFloat);
  if (quantization.absmax) return absmax_values(wide, quantization.bits, 1.0).to(x.scalar_type());
  const at::Tensor high = at::ones({1}), low = quantization.symmetric ? -high : at::zeros({1});
  const AffineRange range = affine_range_of_ends(low, high, quantization.bits, quantization.symmetric);
  return affine_values(affine_codes(wide, range, quantization.bits), range).to(x.scalar_type());
}

at::Tensor widen_where_needed(const at::Tensor& x) {
  return x.scalar_type() == at::kHalf && !half_products_work() ? x.to(at::kFloat) : x;
}

}  // namespace

AttentionQuantization AttentionQuantization::of_layer(std::int64_t layer) const {
  AttentionQuantization own = *this;
  if (!maxima.empty()) own.maxima = {maxima.at(static_cast<std::size_t>(layer))};
  return own;
}

std::string attention_operand_name(std::int64_t layer, const char* operand) {
  return "layers." + std::to_string(layer) + ".self_attn." + operand;
}

at::Tensor hidden_keys(std::int64_t queries, std::int64_t keys, std::int64_t first_query, std::int64_t sliding_window) {
  const at::Tensor all = at::ones({queries, keys}, at::kBool);
  const at::Tensor future = all.triu(first_query + 1);
  return sliding_window > 0 ? at::logical_or(future, all.tril(first_query - sliding_window)) : future;
}

at::Tensor causal_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                            const AttentionQuantization& quantization, const AttentionRules& rules) {
  check_shapes(query, key, value);
  const bool quantizes = !quantization.off();
  at::Tensor q = query, k = key, v = value;
  if (quantizes) {
    const AttentionQuantization::Maxima fixed =
        quantization.maxima.empty() ? AttentionQuantization::Maxima{} : quantization.maxima.front();
    q = quantize_operand(q, quantization, fixed.query);
    k = quantize_operand(k, quantization, fixed.key);
    v = quantization.values_per_token ? quantize_operand(v, quantization, fixed.value)
                                      : quantize_operand(v.transpose(1, 2), quantization, fixed.value).transpose(1, 2);
  }
  q = widen_where_needed(q);
  k = widen_where_needed(k.to(q.scalar_type()));
  v = widen_where_needed(v.to(q.scalar_type()));

  const std::int64_t heads = q.size(0), queries = q.size(1), head_dim = q.size(2);
  const std::int64_t kv_heads = k.size(0), keys = k.size(1), group = heads / kv_heads;
  const std::int64_t past = keys - queries;
  const double scale = rules.score_scale > 0.0 ? rules.score_scale : 1.0 / std::sqrt(static_cast<double>(head_dim));
  const std::int64_t step = std::clamp(kMaxScores / std::max<std::int64_t>(1, heads * keys), std::int64_t{1}, queries);

  std::vector<at::Tensor> parts;
  for (std::int64_t begin = 0; begin < queries; begin += step) {
    const std::int64_t rows = std::min(step, queries - begin);
    const std::int64_t end = past + begin + rows;  // the last row's key, plus one
    const std::int64_t first =
        rules.sliding_window > 0 ? std::max<std::int64_t>(0, past + begin + 1 - rules.sliding_window) : 0;
    const std::int64_t seen = end - first;
    const at::Tensor part = q.narrow(1, begin, rows).reshape({kv_heads, group * rows, head_dim});
    at::Tensor scores = at::bmm(part, k.narrow(1, first, seen).transpose(1, 2)).to(at::kFloat) * scale;
    if (rules.score_softcap > 0.0) scores = at::tanh(scores / rules.score_softcap) * rules.score_softcap;
    scores = scores.view({heads, rows, seen});
    if (rows > 1)
      scores = scores.masked_fill(hidden_keys(rows, seen, past + begin - first, rules.sliding_window), kHidden);
    at::Tensor probabilities = at::softmax(scores, -1).to(query.scalar_type());
    if (quantizes) probabilities = quantize_probabilities(probabilities, quantization);
    const at::Tensor weights = probabilities.to(q.scalar_type()).view({kv_heads, group * rows, seen});
    parts.push_back(at::bmm(weights, v.narrow(1, first, seen)).view({heads, rows, head_dim}));
  }
  const at::Tensor output = parts.size() == 1 ? parts.front() : at::cat(parts, 1);
  return output.to(query.scalar_type());
}

at::Tensor FullPrecisionWindow::attend(const AttentionCall& call) {
  if (call.first_position != 0)
    throw Error(ErrorCode::InvalidArgument,
                "A whole window begins at position 0, not at " + std::to_string(call.first_position) + ".");
  return causal_attention(call.query, call.key, call.value, quantization_.of_layer(call.layer), call.rules);
}

}  // namespace qs
