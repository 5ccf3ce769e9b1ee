#include "backend/methods/nuq_rows.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "backend/types/error.h"
#include "kernels/dispatch.h"
#include "kernels/pack_bits.h"

namespace qs {
namespace {

template <typename T>
const T* as(const ExactBuffer& buffer) {
  return reinterpret_cast<const T*>(buffer.data());
}

template <typename T>
void push(ExactBuffer& buffer, T value) {
  std::memcpy(buffer.grow(sizeof(T)), &value, sizeof(T));
}

}  // namespace

/// One token while it is encoded.
struct NuqRows::Row {
  explicit Row(std::int64_t channels)
      : y(static_cast<std::size_t>(channels)), sorted(y.size()), codes(y.size()), sparse(y.size()) {}
  std::vector<float> y, sorted;
  std::vector<std::uint8_t> codes;
  std::vector<char> sparse;
  std::vector<std::int64_t> above, below;
  float middle = 0.0f, half = 0.0f;  ///< values

  /// Marks the `most` largest (smallest) by `rank` of a side's channels, the first on ties.
  void mark(std::vector<std::int64_t>& side, const float* rank, std::int64_t most, bool largest) {
    if (static_cast<std::int64_t>(side.size()) > most) {
      std::stable_sort(side.begin(), side.end(),
                       [&](std::int64_t a, std::int64_t b) { return largest ? rank[a] > rank[b] : rank[a] < rank[b]; });
      side.resize(static_cast<std::size_t>(most));
    }
    for (const std::int64_t channel : side) sparse[channel] = 1;
  }
};

NuqRows::NuqRows(std::int64_t kv_heads, std::int64_t head_dim, KvRole role, const NuqCoding& coding,
                 const KvquantSettings& settings)
    : TokenStore(kv_heads, head_dim),
      role_(role),
      coding_(coding),
      settings_(settings),
      head_bytes_(kernels::bit_stream_bytes(head_dim, settings.bits)),
      zero_code_(coding.zero_code()),
      table_(kernels::kTableSize) {
  kernels::fill_table(coding_.table.data(), static_cast<std::int64_t>(coding_.table.size()), table_.data());
  for (std::int64_t channel = 0; channel < width(); ++channel)
    head_of_channel_.push_back(static_cast<std::uint16_t>(channel / head_dim));
  if (role == KvRole::Value) return;
  for (std::int64_t channel = 0; channel < width(); ++channel) {
    const float scaled = coding_.table[zero_code_] * coding_.half[channel];
    zero_code_value_.push_back(scaled + coding_.middle[channel]);
  }
}

void NuqRows::append(const float* rows, std::int64_t tokens) {
  while (tokens > 0) {
    if (chunks_.empty() || chunks_.back().tokens == kChunkTokens) chunks_.emplace_back();
    const std::int64_t count = std::min(tokens, kChunkTokens - chunks_.back().tokens);
    append_to_chunk(chunks_.back(), rows, count);
    rows += count * width();
    tokens -= count;
  }
}

void NuqRows::append_to_chunk(Chunk& chunk, const float* rows, std::int64_t tokens) {
  auto* const packed =
      reinterpret_cast<std::uint8_t*>(chunk.codes.grow(static_cast<std::size_t>(tokens * row_bytes())));
  std::vector<std::vector<Outlier>> outliers(static_cast<std::size_t>(tokens));
  std::vector<float> middle(outliers.size()), half(outliers.size());
  const auto encode_some = [&](std::int64_t begin, std::int64_t end) {
    Row row(width());
    for (std::int64_t t = begin; t < end; ++t) {
      encode(rows + t * width(), row, packed + t * row_bytes(), outliers[t]);
      middle[t] = row.middle;
      half[t] = row.half;
    }
  };
  tokens > 16 ? at::parallel_for(0, tokens, 16, encode_some) : encode_some(0, tokens);
  if (role_ == KvRole::Value) {
    const auto store = [&](ExactBuffer& buffer, const std::vector<float>& values) {
      std::byte* const place = buffer.grow(static_cast<std::size_t>(tokens * parameter_bytes()));
      if (settings_.store == GroupStore::F32) {
        std::memcpy(place, values.data(), values.size() * sizeof(float));
      } else {
        kernels::kernel_set().f32_to_f16(values.data(), reinterpret_cast<std::uint16_t*>(place), tokens);
      }
    };
    store(chunk.middle, middle);
    store(chunk.half, half);
  }
  if (settings_.outliers > 0.0) {
    auto end = static_cast<std::uint32_t>(chunk.values.bytes() / 2);
    for (const std::vector<Outlier>& of_token : outliers) {
      for (const Outlier& outlier : of_token) {
        std::uint16_t value = 0;
        kernels::f32_to_f16_scalar(&outlier.value, &value, 1);
        push(chunk.channels, outlier.channel);
        push(chunk.values, value);
      }
      end += static_cast<std::uint32_t>(of_token.size());
      push(chunk.ends, end);
    }
  }
  chunk.tokens += tokens;
  tokens_ += tokens;
}

void NuqRows::encode(const float* x, Row& row, std::uint8_t* packed, std::vector<Outlier>& outliers) const {
  std::fill(row.sparse.begin(), row.sparse.end(), char{0});
  role_ == KvRole::Key ? choose_key_outliers(x, row) : choose_value_outliers(x, row);
  choose_codes(x, row);
  for (std::int64_t channel = 0; settings_.outliers > 0.0 && channel < width(); ++channel) {
    if (!row.sparse[channel]) continue;
    row.codes[channel] = zero_code_;
    outliers.push_back({static_cast<std::uint16_t>(channel), x[channel]});
  }
  for (std::int64_t head = 0; head < kv_heads_; ++head) {
    kernels::pack_bit_stream(row.codes.data() + head * head_dim_, head_dim_, settings_.bits,
                             packed + head * head_bytes_);
  }
}

void NuqRows::choose_key_outliers(const float* x, Row& row) const {
  for (std::int64_t d = 0; d < width(); ++d)
    row.y[d] = coding_.half[d] == 0.0f ? 0.0f : (x[d] - coding_.middle[d]) / coding_.half[d];
  if (settings_.outliers == 0.0) return;
  row.above.clear();
  row.below.clear();
  for (std::int64_t d = 0; d < width(); ++d) {
    if (x[d] > coding_.upper[d]) row.above.push_back(d);
    if (x[d] < coding_.lower[d]) row.below.push_back(d);
  }
  const std::int64_t cap = settings_.cap(width()), most = cap > 0 ? cap : width();
  // A channel of one value has no y to be ranked by; its outliers are the strongest.
  if (cap > 0) {
    for (std::int64_t d = 0; d < width(); ++d) row.sorted[d] = (x[d] - coding_.middle[d]) / coding_.half[d];
  }
  row.mark(row.above, row.sorted.data(), most, true);
  row.mark(row.below, row.sorted.data(), most, false);
}

void NuqRows::choose_value_outliers(const float* x, Row& row) const {
  const std::int64_t last = width() - 1;
  float lowest = x[0], highest = x[0];
  if (settings_.outliers > 0.0) {
    std::copy_n(x, width(), row.sorted.begin());
    const auto order_statistic = [&](std::int64_t rank) {
      std::nth_element(row.sorted.begin(), row.sorted.begin() + rank, row.sorted.end());
      return row.sorted[rank];
    };
    const auto quantile = [&](double fraction) {
      const double position = fraction * static_cast<double>(last);
      const auto rank = static_cast<std::int64_t>(std::floor(position));
      const float low = order_statistic(rank);
      const float high = rank < last ? *std::min_element(row.sorted.begin() + rank + 1, row.sorted.end()) : low;
      const float step = (high - low) * static_cast<float>(position - std::floor(position));
      return low + step;
    };
    const float upper = quantile(settings_.upper_fraction()), lower = quantile(1.0 - settings_.upper_fraction());
    const float median = order_statistic(last / 2);
    row.above.clear();
    row.below.clear();
    for (std::int64_t d = 0; d <= last; ++d) {
      if (x[d] >= upper) row.above.push_back(d);
      if (x[d] <= lower) row.below.push_back(d);
    }
    const std::int64_t most = settings_.value_outliers_per_side(width());
    row.mark(row.above, x, most, true);
    row.mark(row.below, x, most, false);
    lowest = highest = median;  // what outliers are replaced by
  }
  for (std::int64_t d = 0; d <= last; ++d) {
    if (row.sparse[d]) continue;
    lowest = std::min(lowest, x[d]);
    highest = std::max(highest, x[d]);
  }
  row.middle = (highest + lowest) / 2.0f;
  row.half = (highest - lowest) / 2.0f;
  for (std::int64_t d = 0; d <= last; ++d) row.y[d] = row.half == 0.0f ? 0.0f : (x[d] - row.middle) / row.half;
}

void NuqRows::choose_codes(const float* x, Row& row) const {
  if (settings_.datatype != NuqDatatype::Uniform) {
    kernels::kernel_set().nearest_levels(row.y.data(), width(), coding_.levels.data(),
                                         static_cast<int>(coding_.levels.size()), row.codes.data());
    return;
  }
  const auto last = static_cast<float>((1 << settings_.bits) - 1);
  const bool keys = role_ == KvRole::Key;
  float value_middle = row.middle;
  for (std::int64_t d = 0; d < width(); ++d) {
    const float middle = keys ? coding_.middle[d] : row.middle, half = keys ? coding_.half[d] : row.half;
    row.codes[d] = 0;
    if (half == 0.0f) continue;
    const float per_unit = last / (half * 2.0f);
    float offset = (middle - half) * per_unit;
    if (settings_.integer_zero && !keys) {
      offset = std::clamp(std::nearbyint(offset), -last, 0.0f);
      value_middle = offset / per_unit + half;
    }
    const float scaled = per_unit * x[d];
    row.codes[d] = static_cast<std::uint8_t>(std::clamp(std::nearbyint(scaled - offset), 0.0f, last));
  }
  row.middle = value_middle;
}

std::pair<float, float> NuqRows::factors(const Chunk& chunk, std::int64_t token) const {
  if (settings_.store == GroupStore::F32) return {as<float>(chunk.middle)[token], as<float>(chunk.half)[token]};
  return {kernels::f16_to_f32(as<std::uint16_t>(chunk.middle)[token]),
          kernels::f16_to_f32(as<std::uint16_t>(chunk.half)[token])};
}

std::pair<std::int64_t, std::int64_t> NuqRows::sparse_range(const Chunk& chunk, std::int64_t token) const {
  if (chunk.ends.bytes() == 0) return {0, 0};
  const auto* const ends = as<std::uint32_t>(chunk.ends);
  return {token == 0 ? 0 : ends[token - 1], ends[token]};
}

void NuqRows::add_segments(std::int64_t, std::vector<kernels::Segment>&, DerivedMinima&) const {
  throw Error(ErrorCode::Internal, "Rows of table codes are read by tiles or decoded, not as plain segments.");
}

void NuqRows::decode(std::int64_t head, std::int64_t begin, std::int64_t end, float* rows,
                     std::int64_t row_stride) const {
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(head_dim_));
  const std::int64_t first_channel = head * head_dim_;
  for (std::int64_t token = begin; token < end; ++token) {
    const Chunk& chunk = chunks_[static_cast<std::size_t>(token / kChunkTokens)];
    const std::int64_t t = token % kChunkTokens;
    float* const row = rows + (token - begin) * row_stride;
    kernels::unpack_bit_stream(as<std::uint8_t>(chunk.codes) + t * row_bytes() + head * head_bytes_, head_dim_,
                               settings_.bits, codes.data());
    const auto [middle, half] = role_ == KvRole::Value ? factors(chunk, t) : std::pair{0.0f, 0.0f};
    for (std::int64_t d = 0; d < head_dim_; ++d) {
      const bool keys = role_ == KvRole::Key;
      const float scaled = coding_.table[codes[d]] * (keys ? coding_.half[first_channel + d] : half);
      row[d] = scaled + (keys ? coding_.middle[first_channel + d] : middle);
    }
    const auto [from, to] = sparse_range(chunk, t);
    for (std::int64_t i = from; i < to; ++i) {
      const std::int64_t d = as<std::uint16_t>(chunk.channels)[i] - first_channel;
      if (d >= 0 && d < head_dim_) row[d] = kernels::f16_to_f32(as<std::uint16_t>(chunk.values)[i]);
    }
  }
}

void NuqRows::add_bytes(CacheStats& stats) const {
  for (const Chunk& chunk : chunks_) {
    stats.bytes_codes += chunk.codes.bytes();
    stats.bytes_scales += chunk.half.bytes();
    stats.bytes_zeros += chunk.middle.bytes();
    stats.bytes_outliers += chunk.values.bytes();
    stats.bytes_indices += chunk.channels.bytes() + chunk.ends.bytes();
  }
}

std::int64_t NuqRows::constant_bytes() const {
  const std::size_t floats = table_.size() + coding_.levels.size() + zero_code_value_.size() + coding_.lower.size() +
                             coding_.upper.size() + coding_.middle.size() + coding_.half.size();
  return static_cast<std::int64_t>(floats * sizeof(float) + head_of_channel_.size() * sizeof(std::uint16_t));
}

void NuqRows::gather_sparse(std::int64_t begin, std::int64_t count, SparseTile& tile) const {
  const Chunk& chunk = chunks_[static_cast<std::size_t>(begin / kChunkTokens)];
  const std::int64_t first = begin % kChunkTokens;
  tile.head_begin.assign(static_cast<std::size_t>(kv_heads_ + 1), 0);
  const std::int64_t from = sparse_range(chunk, first).first, to = sparse_range(chunk, first + count - 1).second;
  tile.elements.resize(static_cast<std::size_t>(to - from));
  if (from == to) return;
  const auto* const channels = as<std::uint16_t>(chunk.channels);
  for (std::int64_t i = from; i < to; ++i) ++tile.head_begin[head_of_channel_[channels[i]] + 1];
  for (std::int64_t head = 0; head < kv_heads_; ++head) tile.head_begin[head + 1] += tile.head_begin[head];
  std::vector<std::int64_t> next(tile.head_begin.begin(), tile.head_begin.end() - 1);
  std::vector<float> values(tile.elements.size());
  kernels::kernel_set().f16_to_f32(as<std::uint16_t>(chunk.values) + from, values.data(), to - from);
  for (std::int64_t t = 0, i = from; t < count; ++t) {
    const std::int64_t end = as<std::uint32_t>(chunk.ends)[first + t];
    const auto [middle, half] = role_ == KvRole::Value ? factors(chunk, first + t) : std::pair{0.0f, 0.0f};
    const float shared = coding_.table[zero_code_] * half + middle;
    for (; i < end; ++i) {
      const std::uint16_t channel = channels[i], head = head_of_channel_[channel];
      const float dense = role_ == KvRole::Key ? zero_code_value_[channel] : shared;
      tile.elements[next[head]++] = {static_cast<std::uint16_t>(t),
                                     static_cast<std::uint16_t>(channel - head * head_dim_), values[i - from] - dense};
    }
  }
}

kernels::Segment NuqRows::tile_segment(std::int64_t head, std::int64_t begin, std::int64_t count,
                                       const SparseTile& tile, kernels::TableRows& rows) const {
  const Chunk& chunk = chunks_[static_cast<std::size_t>(begin / kChunkTokens)];
  const std::int64_t first = begin % kChunkTokens;
  rows.table = table_.data();
  rows.sparse = tile.elements.data() + tile.head_begin[head];
  rows.sparse_count = tile.head_begin[head + 1] - tile.head_begin[head];
  kernels::Segment segment{.storage = kernels::Storage::Table,
                           .bits = settings_.bits,
                           .tokens = count,
                           .data = as<std::uint8_t>(chunk.codes) + first * row_bytes() + head * head_bytes_,
                           .stride = row_bytes(),
                           .rows = &rows};
  if (role_ == KvRole::Key) {
    rows.channel_scale = coding_.half.data() + head * head_dim_;
    rows.channel_zero = coding_.middle.data() + head * head_dim_;
  } else {
    segment.scale = as<std::uint16_t>(chunk.half) + first;
    segment.group_min = as<std::uint16_t>(chunk.middle) + first;
    segment.scale_stride = 1;
  }
  return segment;
}

}  // namespace qs
