#include "backend/methods/skvq_calibration.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "backend/methods/k_means.h"
#include "backend/methods/kv_params.h"
#include "backend/methods/skvq.h"
#include "backend/model/cached_attention.h"
#include "backend/model/in_layer.h"
#include "backend/model/model.h"
#include "backend/types/error.h"

namespace qs {
namespace {

constexpr int kRestarts = 10;
constexpr std::int64_t kBins = 128;
/// Prompts that a clip ratio is searched on, and tokens of each.
constexpr std::int64_t kSearchPrompts = 4, kSearchTokens = 256;

bool flag(const ParamSet& params, const char* key) { return std::get<bool>(params.at(key)); }

ChannelStatistic statistic_of(const ParamSet& params) {
  const std::string& word = word_param(params, "statistic");
  if (word == "absmax") return ChannelStatistic::AbsMax;
  return word == "histogram" ? ChannelStatistic::Histogram : ChannelStatistic::MinMax;
}

/// [kv_heads, tokens, head_dim] as f32 [tokens, width].
at::Tensor token_matrix(const at::Tensor& x) {
  return x.to(at::kFloat).transpose(0, 1).reshape({x.size(1), x.size(0) * x.size(2)});
}

void add_ranges(ChannelStatistics& statistics, const at::Tensor& tokens) {
  const at::Tensor least = tokens.amin(0).to(at::kDouble), most = tokens.amax(0).to(at::kDouble);
  statistics.least = statistics.least.defined() ? at::minimum(statistics.least, least) : least;
  statistics.most = statistics.most.defined() ? at::maximum(statistics.most, most) : most;
}

/// Counts over the common range of all channels, which add_ranges has found.
void add_histogram(ChannelStatistics& statistics, const at::Tensor& tokens) {
  const std::int64_t width = tokens.size(1);
  const double low = statistics.least.min().item<double>(), high = statistics.most.max().item<double>();
  if (!statistics.histogram.defined()) statistics.histogram = at::zeros({width, kBins}, at::kDouble);
  const double step = high > low ? (high - low) / static_cast<double>(kBins) : 1.0;
  const at::Tensor bin = at::floor((tokens.to(at::kDouble) - low) / step).clamp(0, kBins - 1).to(at::kLong).t();
  statistics.histogram.scatter_add_(1, bin.contiguous(), at::ones(bin.sizes(), at::kDouble));
}

/// Factors that move half of the spread between channels (in logarithm) away; their geometric mean is 1.
at::Tensor smoothing_factors(const ChannelStatistics& statistics) {
  const at::Tensor largest = at::maximum(statistics.least.abs(), statistics.most.abs()).clamp_min(1e-5);
  const at::Tensor spread = largest.log();
  return at::exp((spread.mean() - spread) * 0.5).to(at::kFloat);
}

struct Sample {
  at::Tensor query, key, value;  ///< keys in the method's domain; query undefined where it is not known
};

/// What one side of a layer learns besides the clip ratio.
void learn_side(const std::string& prefix, ChannelStatistics statistics, const ParamSet& params, std::uint64_t seed,
                KvLayerArtifact& artifact) {
  if (flag(params, "smooth")) {
    const at::Tensor factors = smoothing_factors(statistics);
    artifact[prefix + "smooth"] = factors;
    statistics.least = statistics.least * factors;
    statistics.most = statistics.most * factors;
  }
  if (flag(params, "reorder")) {
    const ChannelGroups groups =
        cluster_channels(statistics, statistic_of(params), int_param(params, "group_size"), seed);
    artifact[prefix + "order"] = at::tensor(groups.order, at::kInt);
    artifact[prefix + "start"] = at::tensor(groups.start, at::kInt);
  }
}

/// Attention of a whole prompt in f32. @param key  rotated; the result is [heads, tokens, head_dim]
at::Tensor attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, const CacheShape& shape) {
  const std::int64_t heads = query.size(0), tokens = query.size(1), head_dim = query.size(2), kv_heads = key.size(0);
  const double scale =
      shape.score_scale > 0.0 ? shape.score_scale : 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  const at::Tensor q = query.to(at::kFloat).reshape({kv_heads, heads / kv_heads * tokens, head_dim});
  at::Tensor scores = at::bmm(q, key.transpose(1, 2)).mul_(scale).view({heads, tokens, tokens});
  if (shape.score_softcap > 0.0) scores = at::tanh(scores / shape.score_softcap) * shape.score_softcap;
  const at::Tensor past = at::arange(tokens, at::kLong).unsqueeze(1) - at::arange(tokens, at::kLong);
  at::Tensor hidden = past < 0;
  if (shape.sliding_window > 0) hidden = at::logical_or(hidden, past >= shape.sliding_window);
  scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
  return at::bmm(at::softmax(scores, -1).view({kv_heads, -1, tokens}), value).view({heads, tokens, head_dim});
}

/// Searches the clip ratios of a layer (KV specification 5.4): keys first, then values with the keys found.
class ClipSearch {
 public:
  ClipSearch(const std::vector<Sample>& samples, const CacheShape& shape, const ParamSet& params, bool pre_rope)
      : samples_(samples), shape_(shape), params_(params), pre_rope_(pre_rope) {}

  void run(KvLayerArtifact& artifact) {
    const bool by_group = word_param(params_, "clip_rule") == "search_groups";
    artifact["k_clip"] = artifact["v_clip"] = at::ones({1}, at::kHalf);
    for (const Sample& sample : samples_) {
      keys_.push_back(seen_key(sample.key.to(at::kFloat)));
      if (sample.query.defined())
        wanted_.push_back(attention(sample.query, keys_.back(), sample.value.to(at::kFloat), shape_));
    }
    for (const KvRole role : {KvRole::Key, KvRole::Value}) {
      const std::string name = role == KvRole::Key ? "k_clip" : "v_clip";
      const Skvq method(params_, &artifact);
      if (method.off(role)) continue;
      SkvqQuantizer quantizer = method.quantizer(role, shape_.kv_heads * shape_.head_dim);
      quantizer.clip = {1.0f};
      minimise(role, quantizer, [&](float alpha) { quantizer.clip = {alpha}; });
      if (by_group) {
        quantizer.clip.assign(static_cast<std::size_t>(quantizer.groups.groups()), quantizer.clip[0]);
        for (float& place : quantizer.clip) minimise(role, quantizer, [&](float alpha) { place = alpha; });
      }
      artifact[name] = at::tensor(quantizer.clip, at::kFloat).to(at::kHalf);
      if (role == KvRole::Key) {
        for (std::size_t i = 0; i < samples_.size(); ++i) keys_[i] = seen_key(reconstruct(samples_[i].key, quantizer));
      }
    }
  }

 private:
  at::Tensor seen_key(const at::Tensor& key) const { return pre_rope_ ? apply_rope(key, 0, shape_.rope) : key; }

  at::Tensor reconstruct(const at::Tensor& x, const SkvqQuantizer& quantizer) const {
    const at::Tensor values = quantize_channel_groups(token_matrix(x), quantizer).values;
    return values.view({x.size(1), x.size(0), x.size(2)}).transpose(0, 1).contiguous();
  }

  double error(KvRole role, const SkvqQuantizer& quantizer) const {
    double sum = 0.0;
    for (std::size_t i = 0; i < samples_.size(); ++i) {
      const at::Tensor& x = role == KvRole::Key ? samples_[i].key : samples_[i].value;
      const at::Tensor seen = reconstruct(x, quantizer);
      if (!samples_[i].query.defined()) {
        sum += (seen - x.to(at::kFloat)).square().sum().item<double>();
        continue;
      }
      const at::Tensor got =
          role == KvRole::Key ? attention(samples_[i].query, seen_key(seen), samples_[i].value.to(at::kFloat), shape_)
                              : attention(samples_[i].query, keys_[i], seen, shape_);
      sum += (got - wanted_[i]).square().sum().item<double>();
    }
    return sum;
  }

  /// Tries 1.00, 0.99 ... 0.80, as f16 keeps them, and leaves the best; the larger of equals.
  template <typename Set>
  void minimise(KvRole role, const SkvqQuantizer& quantizer, const Set& set) const {
    double least = std::numeric_limits<double>::infinity();
    float best = 1.0f;
    for (int percent = 100; percent >= 80; --percent) {
      const float alpha = static_cast<float>(c10::Half(static_cast<float>(percent) / 100.0f));
      set(alpha);
      const double found = error(role, quantizer);
      if (found < least) {
        least = found;
        best = alpha;
      }
    }
    set(best);
  }

  const std::vector<Sample>& samples_;
  const CacheShape& shape_;
  const ParamSet& params_;
  bool pre_rope_;
  std::vector<at::Tensor> keys_;    ///< as attention sees them while values are searched
  std::vector<at::Tensor> wanted_;  ///< attention of the originals
};

struct LayerSums {
  ChannelStatistics key, value;
  std::vector<Sample> samples;
};

/// First pass: ranges, and the prompts for the clip search. Second pass (histograms only): counts.
class StatisticsSink final : public TapSink {
 public:
  StatisticsSink(std::vector<LayerSums>& layers, bool pre_rope, bool keeps_samples)
      : layers_(&layers), pre_rope_(pre_rope), keeps_samples_(keeps_samples) {}
  bool histograms = false;

  void on_attention(const AttentionCall& call) override {
    LayerSums& sums = (*layers_)[static_cast<std::size_t>(call.layer)];
    const at::Tensor& key = pre_rope_ ? call.key_pre_rope : call.key;
    const at::Tensor keys = token_matrix(key), values = token_matrix(call.value);
    if (histograms) {
      add_histogram(sums.key, keys);
      add_histogram(sums.value, values);
      return;
    }
    in_layer(call.layer, [&] {
      check_finite(key, KvRole::Key, call.first_position);
      check_finite(call.value, KvRole::Value, call.first_position);
    });
    add_ranges(sums.key, keys);
    add_ranges(sums.value, values);
    if (!keeps_samples_ || static_cast<std::int64_t>(sums.samples.size()) >= kSearchPrompts) return;
    const std::int64_t tokens = std::min(kSearchTokens, key.size(1));
    const auto part = [&](const at::Tensor& x) { return x.narrow(1, 0, tokens).clone(); };
    sums.samples.push_back({part(call.query), part(key), part(call.value)});
  }

 private:
  std::vector<LayerSums>* layers_;
  bool pre_rope_, keeps_samples_;
};

KvLayerArtifact learn_layer(const LayerSums& sums, const CacheShape& shape, const ParamSet& params,
                            std::uint64_t seed) {
  KvLayerArtifact artifact;
  learn_side("k_", sums.key, params, seed, artifact);
  learn_side("v_", sums.value, params, seed + 1, artifact);
  if (word_param(params, "clip_rule") != "fixed")
    ClipSearch(sums.samples, shape, params, flag(params, "pre_rope")).run(artifact);
  return artifact;
}

}  // namespace

ChannelGroups cluster_channels(const ChannelStatistics& statistics, ChannelStatistic statistic, std::int64_t group_size,
                               std::uint64_t seed) {
  const std::int64_t width = statistics.least.numel();
  if (group_size < 1 || width % group_size != 0) {
    throw Error(ErrorCode::InvalidArgument, "skvq: group_size = " + std::to_string(group_size) +
                                                " does not divide the " + std::to_string(width) +
                                                " channels of a token.");
  }
  at::Tensor features;
  if (statistic == ChannelStatistic::MinMax) {
    features = at::stack({statistics.least, statistics.most}, 1);
  } else if (statistic == ChannelStatistic::AbsMax) {
    features = at::maximum(statistics.least.abs(), statistics.most.abs()).unsqueeze(1);
  } else {
    features = statistics.histogram / statistics.histogram.sum(at::IntArrayRef{1}, true).clamp_min(1.0);
  }
  features = features.to(at::kDouble).contiguous();
  const double* const first = features.data_ptr<double>();
  const std::int64_t clusters = width / group_size;
  const Clusters found = k_means({first, first + features.numel()}, features.size(1), clusters, kRestarts, seed);

  const at::Tensor ranges = (statistics.most - statistics.least).to(at::kDouble).contiguous();
  std::vector<double> range(static_cast<std::size_t>(clusters), 0.0);
  std::vector<std::int64_t> members(static_cast<std::size_t>(clusters), 0);
  for (std::int64_t channel = 0; channel < width; ++channel) {
    range[found.of_point[channel]] += ranges.data_ptr<double>()[channel];
    ++members[found.of_point[channel]];
  }
  for (std::int64_t cluster = 0; cluster < clusters; ++cluster)
    if (members[cluster] > 0) range[cluster] /= static_cast<double>(members[cluster]);
  std::vector<std::int32_t> sorted(static_cast<std::size_t>(clusters));
  std::iota(sorted.begin(), sorted.end(), 0);
  std::stable_sort(sorted.begin(), sorted.end(), [&](std::int32_t a, std::int32_t b) { return range[a] < range[b]; });

  ChannelGroups groups;
  groups.start.push_back(0);
  for (const std::int32_t cluster : sorted) {
    for (std::int64_t channel = 0; channel < width; ++channel)
      if (found.of_point[channel] == cluster) groups.order.push_back(static_cast<std::int32_t>(channel));
    groups.start.push_back(static_cast<std::int32_t>(groups.order.size()));
  }
  return groups;
}

std::vector<KvLayerArtifact> calibrate_skvq(const KvCalibrationInput& input, const ParamSet& params,
                                            const JobContext& job) {
  const c10::NoGradGuard no_grad;
  const ArchitectureSpec& spec = input.model.spec();
  const bool histograms = flag(params, "reorder") && statistic_of(params) == ChannelStatistic::Histogram;
  const bool searches = word_param(params, "clip_rule") != "fixed";
  Skvq(params, nullptr).check_fits(cache_shape(spec));
  std::vector<LayerSums> layers(static_cast<std::size_t>(spec.layers));
  StatisticsSink sink(layers, flag(params, "pre_rope"), searches);
  FullPrecisionWindow attention;
  const auto windows = static_cast<std::int64_t>(input.windows.size());
  const JobContext running = job.part(0.0, searches ? 0.5 : 0.9);
  for (const bool counting : {false, true}) {
    if (counting && !histograms) break;
    sink.histograms = counting;
    const JobContext pass = !histograms ? running : counting ? running.part(0.5, 1.0) : running.part(0.0, 0.5);
    for (std::int64_t i = 0; i < windows; ++i) {
      pass.checkpoint(i, windows, counting ? "Calibrating: histograms" : "Calibrating: ranges");
      forward(spec, input.model.weights(), RaggedBatch::single(input.windows[static_cast<std::size_t>(i)]), attention,
              LogitRows::None, &sink, pass.quiet());
    }
  }
  const JobContext learning = job.part(searches ? 0.5 : 0.9, 1.0);
  std::vector<KvLayerArtifact> artifacts;
  for (std::int64_t layer = 0; layer < spec.layers; ++layer) {
    learning.checkpoint(layer, spec.layers, searches ? "Calibrating: clip ratios" : "Calibrating: channel groups");
    artifacts.push_back(learn_layer(layers[static_cast<std::size_t>(layer)], cache_shape(spec, layer), params,
                                    input.seed + 2 * static_cast<std::uint64_t>(layer)));
  }
  learning.checkpoint(spec.layers, spec.layers, "Calibrating");
  return artifacts;
}

KvLayerArtifact calibrate_skvq_layer(const KvPrompt& sample, const ParamSet& params, std::uint64_t seed) {
  const c10::NoGradGuard no_grad;
  check_finite(sample.key, KvRole::Key);
  check_finite(sample.value, KvRole::Value);
  const at::Tensor keys = token_matrix(sample.key), values = token_matrix(sample.value);
  LayerSums sums;
  add_ranges(sums.key, keys);
  add_ranges(sums.value, values);
  if (statistic_of(params) == ChannelStatistic::Histogram) {
    add_histogram(sums.key, keys);
    add_histogram(sums.value, values);
  }
  const std::int64_t tokens = std::min(kSearchTokens, sample.key.size(1));
  const auto part = [&](const at::Tensor& x) { return x.defined() ? x.narrow(1, 0, tokens) : x; };
  sums.samples.push_back({part(sample.query), part(sample.key), part(sample.value)});
  return learn_layer(sums, sample.shape, params, seed);
}

}  // namespace qs
