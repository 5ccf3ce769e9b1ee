#include "analysis/outliers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/types/error.h"

namespace qs::analysis {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

double quantile_of(std::vector<float>& values, double q) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double position = q * static_cast<double>(values.size() - 1);
  const auto low = static_cast<std::size_t>(position);
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(low), values.end());
  const double at_low = values[low];
  if (low + 1 >= values.size()) return at_low;
  const double at_high = *std::min_element(values.begin() + static_cast<std::ptrdiff_t>(low) + 1, values.end());
  return at_low + (position - static_cast<double>(low)) * (at_high - at_low);
}

double median_of_finite(std::span<const float> values) {
  std::vector<float> finite;
  std::copy_if(values.begin(), values.end(), std::back_inserter(finite), [](float v) { return std::isfinite(v); });
  return finite.empty() ? 0.0 : quantile_of(finite, 0.5);
}

void fill_ratio(ChannelStats& stats) {
  const double median = median_of_finite(stats.absmax);
  stats.max_median_ratio.resize(stats.absmax.size());
  for (std::size_t c = 0; c < stats.absmax.size(); ++c)
    stats.max_median_ratio[c] = median > 0 ? static_cast<float>(stats.absmax[c] / median) : kNaN;
}

}  // namespace

const char* channel_stat_id(ChannelStat stat) {
  switch (stat) {
    case ChannelStat::AbsMax:
      return "absmax";
    case ChannelStat::P999:
      return "p99.9";
    case ChannelStat::Kurtosis:
      return "kurtosis";
    case ChannelStat::Std:
      return "std";
    case ChannelStat::MaxMedianRatio:
      return "max/median";
  }
  return "";
}

const std::vector<float>& ChannelStats::of(ChannelStat stat) const {
  switch (stat) {
    case ChannelStat::AbsMax:
      return absmax;
    case ChannelStat::P999:
      return p999;
    case ChannelStat::Kurtosis:
      return kurtosis;
    case ChannelStat::Std:
      return std_dev;
    case ChannelStat::MaxMedianRatio:
      return max_median_ratio;
  }
  return absmax;
}

ChannelStats channel_stats(const TensorView& x) {
  if (x.shape.size() != 3)
    throw Error(ErrorCode::InvalidArgument,
                "Channel statistics need a tensor [heads, tokens, head_dim]; this one has " +
                    std::to_string(x.shape.size()) + " axes.");
  const std::int64_t heads = x.shape[0], tokens = x.shape[1], dim = x.shape[2];
  ChannelStats stats;
  stats.tokens = tokens;
  std::vector<float> column;
  for (std::int64_t h = 0; h < heads; ++h) {
    for (std::int64_t d = 0; d < dim; ++d) {
      const float* base = x.data + h * tokens * dim + d;
      column.clear();
      float absmax = 0.0f;
      double sum = 0.0;
      for (std::int64_t t = 0; t < tokens; ++t) {
        const float v = base[t * dim];
        if (!std::isfinite(v)) {
          ++stats.non_finite;
          if (!(absmax != absmax)) absmax = std::fabs(v);
          continue;
        }
        sum += v;
        column.push_back(std::fabs(v));
        if (std::fabs(v) > absmax) absmax = std::fabs(v);
      }
      const auto count = static_cast<double>(column.size());
      const double mean = count > 0 ? sum / count : 0.0;
      double second = 0.0, fourth = 0.0;
      for (std::int64_t t = 0; t < tokens; ++t) {
        const float v = base[t * dim];
        if (!std::isfinite(v)) continue;
        const double square = (v - mean) * (v - mean);
        second += square;
        fourth += square * square;
      }
      second = count > 0 ? second / count : 0.0;
      fourth = count > 0 ? fourth / count : 0.0;
      stats.absmax.push_back(absmax);
      stats.std_dev.push_back(static_cast<float>(std::sqrt(second)));
      stats.kurtosis.push_back(second > 0 ? static_cast<float>(fourth / (second * second) - 3.0) : 0.0f);
      stats.p999.push_back(static_cast<float>(quantile_of(column, 0.999)));
    }
  }
  fill_ratio(stats);
  return stats;
}

ChannelStats channel_stats(const ActivationStats& input) {
  ChannelStats stats;
  stats.tokens = input.tokens;
  stats.absmax = input.absmax;
  stats.p999.assign(input.absmax.size(), kNaN);
  stats.kurtosis.assign(input.absmax.size(), kNaN);
  stats.std_dev.assign(input.absmax.size(), kNaN);
  for (std::size_t c = 0; c < input.absmax.size(); ++c) {
    if (!std::isfinite(input.absmax[c])) ++stats.non_finite;
    if (c < input.mean.size() && c < input.second_moment.size()) {
      const double mean = input.mean[c];
      stats.std_dev[c] = static_cast<float>(std::sqrt(std::max(0.0, input.second_moment[c] - mean * mean)));
    }
  }
  fill_ratio(stats);
  return stats;
}

ChannelRanking rank_channels(std::span<const float> values, double k) {
  ChannelRanking ranking;
  ranking.order.resize(values.size());
  std::iota(ranking.order.begin(), ranking.order.end(), std::int64_t{0});
  const auto key = [&](std::int64_t c) {
    const float v = values[static_cast<std::size_t>(c)];
    return v != v ? -std::numeric_limits<float>::infinity() : v;
  };
  std::stable_sort(ranking.order.begin(), ranking.order.end(),
                   [&](std::int64_t a, std::int64_t b) { return key(a) > key(b); });
  ranking.values.reserve(values.size());
  for (const std::int64_t c : ranking.order) ranking.values.push_back(values[static_cast<std::size_t>(c)]);
  ranking.median = median_of_finite(values);
  ranking.threshold = k * ranking.median;
  ranking.above = std::count_if(values.begin(), values.end(), [&](float v) { return v > ranking.threshold; });
  return ranking;
}

double jaccard(std::vector<std::int64_t> a, std::vector<std::int64_t> b) {
  const auto tidy = [](std::vector<std::int64_t>& set) {
    std::sort(set.begin(), set.end());
    set.erase(std::unique(set.begin(), set.end()), set.end());
  };
  tidy(a);
  tidy(b);
  std::vector<std::int64_t> common;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  const std::size_t united = a.size() + b.size() - common.size();
  return united == 0 ? 1.0 : static_cast<double>(common.size()) / static_cast<double>(united);
}

TensorView persistence(const std::vector<std::vector<float>>& layers, std::int64_t top) {
  std::vector<std::vector<std::int64_t>> sets;
  for (const auto& values : layers) {
    auto order = rank_channels(values, 1.0).order;
    order.resize(std::min(order.size(), static_cast<std::size_t>(std::max<std::int64_t>(0, top))));
    sets.push_back(std::move(order));
  }
  const auto count = static_cast<std::int64_t>(sets.size());
  std::vector<float> matrix(static_cast<std::size_t>(count * count));
  for (std::int64_t i = 0; i < count; ++i)
    for (std::int64_t j = 0; j < count; ++j)
      matrix[static_cast<std::size_t>(i * count + j)] =
          static_cast<float>(jaccard(sets[static_cast<std::size_t>(i)], sets[static_cast<std::size_t>(j)]));
  return TensorView::own(std::move(matrix), {count, count});
}

TensorView channel_layer_map(const std::vector<ChannelStats>& layers, ChannelStat stat) {
  std::size_t channels = 0;
  for (const auto& layer : layers) channels = std::max(channels, layer.of(stat).size());
  std::vector<float> map(layers.size() * channels, kNaN);
  for (std::size_t l = 0; l < layers.size(); ++l)
    std::copy(layers[l].of(stat).begin(), layers[l].of(stat).end(),
              map.begin() + static_cast<std::ptrdiff_t>(l * channels));
  return TensorView::own(std::move(map),
                         {static_cast<std::int64_t>(layers.size()), static_cast<std::int64_t>(channels)});
}

ChannelReach channel_reach(const KvOverlay& overlay) {
  ChannelReach reach;
  reach.least.assign(static_cast<std::size_t>(overlay.channels()), kNaN);
  reach.largest = reach.least;
  for (std::int64_t token = overlay.quantized_begin; token < overlay.quantized_end; ++token)
    for (std::int64_t channel = 0; channel < overlay.channels(); ++channel) {
      const auto [low, high] = overlay.range_of(token, channel);
      if (low != low) continue;
      const float far = std::max(std::fabs(low), std::fabs(high));
      const auto c = static_cast<std::size_t>(channel);
      reach.least[c] = reach.least[c] != reach.least[c] ? far : std::min(reach.least[c], far);
      reach.largest[c] = reach.largest[c] != reach.largest[c] ? far : std::max(reach.largest[c], far);
    }
  return reach;
}

TensorView columns_in_order(const TensorView& plane, const std::vector<std::int64_t>& order) {
  if (plane.shape.size() != 2 || plane.shape[1] != static_cast<std::int64_t>(order.size()))
    throw Error(ErrorCode::InvalidArgument, "An order of " + std::to_string(order.size()) +
                                                " channels does not fit a plane of " +
                                                std::to_string(plane.shape.size() == 2 ? plane.shape[1] : 0) + ".");
  const std::int64_t rows = plane.shape[0], columns = plane.shape[1];
  std::vector<float> out(static_cast<std::size_t>(plane.size()));
  for (std::int64_t place = 0; place < columns; ++place) {
    const std::int64_t from = order[static_cast<std::size_t>(place)];
    if (from < 0 || from >= columns)
      throw Error(ErrorCode::InvalidArgument, "There is no channel " + std::to_string(from) + " to put in order.");
    for (std::int64_t row = 0; row < rows; ++row)
      out[static_cast<std::size_t>(row * columns + place)] = plane.data[row * columns + from];
  }
  return TensorView::own(std::move(out), plane.shape);
}

TensorView magnitude_by_token(const TensorView& x) {
  if (x.shape.size() != 3)
    throw Error(ErrorCode::InvalidArgument,
                "A token by channel map needs a tensor [heads, tokens, head_dim]; this one has " +
                    std::to_string(x.shape.size()) + " axes.");
  const std::int64_t heads = x.shape[0], tokens = x.shape[1], dim = x.shape[2];
  std::vector<float> out(static_cast<std::size_t>(x.size()));
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t t = 0; t < tokens; ++t)
      for (std::int64_t d = 0; d < dim; ++d)
        out[static_cast<std::size_t>((t * heads + h) * dim + d)] = std::fabs(x.data[(h * tokens + t) * dim + d]);
  return TensorView::own(std::move(out), {tokens, heads * dim});
}

}  // namespace qs::analysis
