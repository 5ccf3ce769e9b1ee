#include "analysis/locality.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>
#include <limits>

#include "backend/types/error.h"

namespace qs::analysis {
namespace {

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Rows = Eigen::Map<const RowMatrix>;
constexpr std::int64_t kBlock = 64;

std::int64_t window_start(const AttentionInput& input, std::int64_t token) {
  return input.window > 0 ? token / input.window * input.window : 0;
}

void check(const AttentionInput& input, std::int64_t head) {
  const auto& q = input.query.shape;
  const auto& k = input.key.shape;
  if (q.size() != 3 || k.size() != 3 || q[1] != k[1] || q[2] != k[2] || k[0] < 1 || q[0] % k[0] != 0)
    throw Error(ErrorCode::InvalidArgument,
                "Attention needs queries [heads, tokens, head_dim] and keys [kv_heads, tokens, head_dim] of the same "
                "tokens and "
                "head_dim, with heads a multiple of kv_heads; the captured shapes do not fit. Capture the text again.");
  if (!input.log_sum_exp.empty() &&
      (input.log_sum_exp.shape.size() != 2 || input.log_sum_exp.shape[0] != q[0] || input.log_sum_exp.shape[1] != q[1]))
    throw Error(ErrorCode::InvalidArgument,
                "The log-sum-exp of attention must be [heads, tokens] of the same capture.");
  if (head < 0 || head >= q[0])
    throw Error(
        ErrorCode::InvalidArgument,
        "Head " + std::to_string(head) + " was asked for; the layer has heads 0 to " + std::to_string(q[0] - 1) + ".");
}

RowMatrix scores(const AttentionInput& input, std::int64_t head, std::int64_t q0, std::int64_t q1, std::int64_t k0,
                 std::int64_t k1) {
  const std::int64_t tokens = input.tokens(), dim = input.query.shape[2];
  const std::int64_t kv_head = head / (input.heads() / input.key.shape[0]);
  const Rows q(input.query.data + (head * tokens + q0) * dim, q1 - q0, dim);
  const Rows k(input.key.data + (kv_head * tokens + k0) * dim, k1 - k0, dim);
  return (q * k.transpose()) * (1.0f / std::sqrt(static_cast<float>(dim)));
}

/// Rows [q0, q1) of attention over keys [k0, k1); everything the mask forbids is 0.
RowMatrix attention_rows(const AttentionInput& input, std::int64_t head, std::int64_t q0, std::int64_t q1,
                         std::int64_t k0, std::int64_t k1) {
  const bool stored = !input.log_sum_exp.empty();
  const std::int64_t from = stored ? k0 : std::min(k0, window_start(input, q0));
  const std::int64_t to = stored ? k1 : std::max(k1, q1);
  RowMatrix p = scores(input, head, q0, q1, from, to);
  for (std::int64_t q = q0; q < q1; ++q) {
    auto row = p.row(q - q0);
    const std::int64_t first = std::max(from, window_start(input, q)), last = std::min(to, q + 1);
    double lse = 0.0;
    if (stored) {
      lse = input.log_sum_exp.data[head * input.tokens() + q];
    } else {
      float largest = -std::numeric_limits<float>::infinity();
      for (std::int64_t k = first; k < last; ++k) largest = std::max(largest, row[k - from]);
      double sum = 0.0;
      for (std::int64_t k = first; k < last; ++k) sum += std::exp(static_cast<double>(row[k - from]) - largest);
      lse = largest + std::log(sum);
    }
    for (std::int64_t k = from; k < to; ++k)
      row[k - from] = k >= first && k < last ? std::exp(row[k - from] - static_cast<float>(lse)) : 0.0f;
  }
  return p.middleCols(k0 - from, k1 - k0);
}

}  // namespace

TensorView attention_tile(const AttentionInput& input, std::int64_t head, std::int64_t query_begin,
                          std::int64_t query_end, std::int64_t key_begin, std::int64_t key_end) {
  check(input, head);
  const std::int64_t tokens = input.tokens();
  if (query_begin < 0 || key_begin < 0 || query_begin >= query_end || key_begin >= key_end || query_end > tokens ||
      key_end > tokens)
    throw Error(ErrorCode::InvalidArgument,
                "An attention tile must lie within tokens 0 to " + std::to_string(tokens) + ".");
  std::vector<float> tile(static_cast<std::size_t>((query_end - query_begin) * (key_end - key_begin)));
  for (std::int64_t q = query_begin; q < query_end; q += kBlock) {
    const std::int64_t end = std::min(query_end, q + kBlock);
    Eigen::Map<RowMatrix>(tile.data() + (q - query_begin) * (key_end - key_begin), end - q, key_end - key_begin) =
        attention_rows(input, head, q, end, key_begin, key_end);
  }
  return TensorView::own(std::move(tile), {query_end - query_begin, key_end - key_begin});
}

std::vector<std::int64_t> distance_marks(std::int64_t tokens) {
  std::vector<std::int64_t> marks;
  if (tokens > 0) marks.push_back(0);
  for (std::int64_t d = 1; d < tokens; d *= 2) marks.push_back(d);
  if (tokens > 1 && marks.back() != tokens - 1) marks.push_back(tokens - 1);
  return marks;
}

double HeadLocality::mass_within(std::int64_t width) const {
  double mass = 0.0;
  const auto end =
      static_cast<std::size_t>(std::clamp<std::int64_t>(width, 0, static_cast<std::int64_t>(mass_by_distance.size())));
  for (std::size_t d = 0; d < end; ++d) mass += mass_by_distance[d];
  return mass;
}

HeadLocality head_locality(const AttentionInput& input, std::int64_t head, std::int64_t sink_tokens,
                           std::int64_t max_queries, const std::function<void()>& checkpoint,
                           const std::vector<QuantizedKeys>& quantized) {
  check(input, head);
  const std::int64_t tokens = input.tokens();
  const std::int64_t step = max_queries > 0 ? std::max<std::int64_t>(1, (tokens + max_queries - 1) / max_queries) : 1;
  const std::int64_t reach = input.window > 0 ? std::min(input.window, tokens) : tokens;
  HeadLocality result;
  result.distance = distance_marks(reach);
  std::vector<double> by_distance(static_cast<std::size_t>(reach));
  std::vector<std::vector<float>> within(result.distance.size());
  result.quantized_mass.assign(quantized.size(), 0.0);
  double entropy = 0.0, sink = 0.0, span = 0.0;
  for (std::int64_t block = 0; block < tokens; block += kBlock) {
    if (checkpoint) checkpoint();
    const std::int64_t block_end = std::min(tokens, block + kBlock);
    const std::int64_t first_query = (block + step - 1) / step * step;
    if (first_query >= block_end) continue;
    const std::int64_t key_begin = window_start(input, block);
    const std::int64_t rows_begin = step >= kBlock ? first_query : block;
    const std::int64_t rows_end = step >= kBlock ? first_query + 1 : block_end;
    const RowMatrix p = attention_rows(input, head, rows_begin, rows_end, key_begin, rows_end);
    for (std::int64_t q = first_query; q < block_end; q += step) {
      const auto row = p.row(q - rows_begin);
      const std::int64_t start = window_start(input, q);
      double cumulative = 0.0;
      std::size_t mark = 0;
      bool reached = false;
      for (std::int64_t d = 0; d <= q - start; ++d) {
        const double mass = row[q - d - key_begin];
        by_distance[static_cast<std::size_t>(d)] += mass;
        cumulative += mass;
        if (mass > 0) entropy -= mass * std::log(mass);
        if (q - d - start < sink_tokens) sink += mass;
        if (!reached && cumulative >= 0.9) span += static_cast<double>(d), reached = true;
        while (mark < result.distance.size() && result.distance[mark] == d)
          within[mark++].push_back(static_cast<float>(cumulative));
      }
      if (!reached) span += static_cast<double>(q - start);
      for (std::size_t i = 0; i < quantized.size(); ++i) {
        const KeyRange keys = quantized[i].at(static_cast<std::size_t>(q - start));
        for (std::int64_t k = keys.begin; k < std::min(keys.end, q - start + 1); ++k)
          result.quantized_mass[i] += row[start + k - key_begin];
      }
      for (; mark < within.size(); ++mark) within[mark].push_back(static_cast<float>(cumulative));
      ++result.queries;
    }
  }
  const double count = static_cast<double>(std::max<std::int64_t>(1, result.queries));
  for (auto& values : within) {
    std::sort(values.begin(), values.end());
    double sum = 0.0;
    for (const float v : values) sum += v;
    const auto quartile = [&](double q) {
      return values.empty()
                 ? 0.0f
                 : values[static_cast<std::size_t>(std::llround(q * static_cast<double>(values.size() - 1)))];
    };
    result.mean.push_back(static_cast<float>(sum / count));
    result.lower.push_back(quartile(0.25));
    result.upper.push_back(quartile(0.75));
  }
  for (const double mass : by_distance) result.mass_by_distance.push_back(static_cast<float>(mass / count));
  result.entropy_nats = entropy / count;
  result.sink_mass = sink / count;
  for (double& mass : result.quantized_mass) mass /= count;
  result.span_90 = span / count;
  return result;
}

PooledAttention pooled_attention(const AttentionInput& input, std::int64_t head, std::int64_t extent,
                                 const std::function<void()>& checkpoint) {
  check(input, head);
  const std::int64_t tokens = input.tokens();
  PooledAttention pooled;
  while ((tokens + pooled.factor - 1) / pooled.factor > std::max<std::int64_t>(1, extent)) pooled.factor *= 2;
  const std::int64_t side = (tokens + pooled.factor - 1) / pooled.factor;
  std::vector<float> largest(static_cast<std::size_t>(side * side)), mean(largest.size());
  for (std::int64_t q0 = 0; q0 < tokens; q0 += std::max(kBlock, pooled.factor)) {
    if (checkpoint) checkpoint();
    const std::int64_t q1 = std::min(tokens, q0 + std::max(kBlock, pooled.factor));
    const std::int64_t key_begin = window_start(input, q0);
    const RowMatrix p = attention_rows(input, head, q0, q1, key_begin, q1);
    for (std::int64_t q = q0; q < q1; ++q)
      for (std::int64_t k = key_begin; k <= q; ++k) {
        const auto cell = static_cast<std::size_t>(q / pooled.factor * side + k / pooled.factor);
        const float mass = p(q - q0, k - key_begin);
        largest[cell] = mass > largest[cell] || mass != mass ? mass : largest[cell];
        mean[cell] += mass;
      }
  }
  for (std::int64_t r = 0; r < side; ++r)
    for (std::int64_t c = 0; c < side; ++c) {
      const auto height = std::min(pooled.factor, tokens - r * pooled.factor);
      const auto width = std::min(pooled.factor, tokens - c * pooled.factor);
      mean[static_cast<std::size_t>(r * side + c)] /= static_cast<float>(height * width);
    }
  pooled.max = TensorView::own(std::move(largest), {side, side});
  pooled.mean = TensorView::own(std::move(mean), {side, side});
  return pooled;
}

TokenAttention token_attention(const AttentionInput& input, std::int64_t head, std::int64_t token) {
  check(input, head);
  const std::int64_t tokens = input.tokens();
  if (token < 0 || token >= tokens)
    throw Error(ErrorCode::InvalidArgument, "Token " + std::to_string(token) +
                                                " was asked for; the capture has tokens 0 to " +
                                                std::to_string(tokens - 1) + ".");
  TokenAttention result;
  const TensorView row = attention_tile(input, head, token, token + 1, 0, tokens);
  result.given.assign(row.values().begin(), row.values().end());
  result.received.assign(static_cast<std::size_t>(tokens), 0.0f);
  const TensorView column = attention_tile(input, head, token, tokens, token, token + 1);
  std::copy(column.values().begin(), column.values().end(), result.received.begin() + token);
  return result;
}

}  // namespace qs::analysis
