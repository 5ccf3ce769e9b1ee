#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backend/types/capture_info.h"
#include "backend/types/kv_overlay.h"
#include "backend/types/tensor_view.h"

namespace qs::analysis {

/// One number a channel. MaxMedianRatio: the channel's absmax over the median of all channels' absmax.
enum class ChannelStat { AbsMax, P999, Kurtosis, Std, MaxMedianRatio };
inline constexpr int kChannelStats = 5;
const char* channel_stat_id(ChannelStat stat);  ///< "absmax", "p99.9", "kurtosis", "std", "max/median"

/// Statistics of every channel over all tokens, in the tensor's own units. Channel of head h, dimension d: h * head_dim
/// + d. What could not be computed is NaN.
struct ChannelStats {
  std::int64_t tokens = 0;
  std::vector<float> absmax, p999, kurtosis, std_dev, max_median_ratio;  ///< [channels]
  std::int64_t non_finite =
      0;  ///< NaN and infinities met; they are left out of the moments and of p99.9, not of absmax
  const std::vector<float>& of(ChannelStat stat) const;
  std::int64_t channels() const { return static_cast<std::int64_t>(absmax.size()); }
};

/// @param x  f32 [heads, tokens, head_dim]
/// p99.9 interpolates linearly between order statistics of |x|; kurtosis is the excess of population moments; a
/// constant channel has kurtosis 0.
/// @throws Error InvalidArgument when x is not of rank 3
ChannelStats channel_stats(const TensorView& x);

/// The same from what a capture keeps of a linear's input; p99.9 and kurtosis are NaN.
ChannelStats channel_stats(const ActivationStats& input);

/// Channels by descending value.
struct ChannelRanking {
  std::vector<std::int64_t> order;  ///< channel at each rank; equal values keep their order, NaN comes last
  std::vector<float> values;        ///< value at each rank
  double median = 0.0;              ///< of the finite values
  double threshold = 0.0;           ///< k * median
  std::int64_t above = 0;           ///< channels with a value above the threshold
};
ChannelRanking rank_channels(std::span<const float> values, double k);

/// |a ∩ b| / |a ∪ b| of two sets of channels; 1 when both are empty.
double jaccard(std::vector<std::int64_t> a, std::vector<std::int64_t> b);

/// Jaccard index of the `top` largest channels of every two layers: f32 [layers, layers].
/// @param layers  one value a channel and layer
TensorView persistence(const std::vector<std::vector<float>>& layers, std::int64_t top);

/// [layers, channels] of one statistic; layers with fewer channels are padded with NaN.
TensorView channel_layer_map(const std::vector<ChannelStats>& layers, ChannelStat stat);

/// How far from zero the range of a quantizer goes, in each channel: the least and the largest over its tokens, the
/// larger of both ends. NaN where no element of the channel is quantized.
struct ChannelReach {
  std::vector<float> least, largest;  ///< [channels]
};
ChannelReach channel_reach(const KvOverlay& overlay);

/// A plane [rows, channels] with its columns in another order: column p of the result is column order[p].
/// @throws Error InvalidArgument when `order` has another length or names a column that is not there
TensorView columns_in_order(const TensorView& plane, const std::vector<std::int64_t>& order);

/// |x| laid out as the eye wants it: [heads, tokens, head_dim] to [tokens, heads * head_dim].
TensorView magnitude_by_token(const TensorView& x);

}  // namespace qs::analysis
