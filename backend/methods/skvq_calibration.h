#pragma once

#include "backend/method.h"
#include "backend/methods/channel_groups.h"

namespace qs {

/// What a calibration saw of the channels of keys or values of one layer. All f64, [width].
struct ChannelStatistics {
  at::Tensor least, most;
  at::Tensor histogram;  ///< [width, 128] shares over the common range; only when asked for
};

enum class ChannelStatistic { MinMax, AbsMax, Histogram };

/// Groups of alike channels (KV specification 5.3): k-means of the statistic with width / group_size clusters and 10
/// restarts, clusters in order of their mean range, channels of a cluster in ascending order.
ChannelGroups cluster_channels(const ChannelStatistics& statistics, ChannelStatistic statistic, std::int64_t group_size,
                               std::uint64_t seed);

/// One layer's artifact a layer: see Skvq.
/// @throws Error InvalidArgument when keys or values hold NaN or infinity, naming layer, head and token, or the group
///         size does not divide the width
std::vector<KvLayerArtifact> calibrate_skvq(const KvCalibrationInput& input, const ParamSet& params,
                                            const JobContext& job);

/// From one layer's keys (in the method's key domain) and values; without queries a searched clip ratio minimises the
/// error of keys and values instead of the attention's.
KvLayerArtifact calibrate_skvq_layer(const KvPrompt& sample, const ParamSet& params, std::uint64_t seed);

}  // namespace qs
