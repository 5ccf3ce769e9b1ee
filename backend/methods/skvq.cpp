#include "backend/methods/skvq.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>

#include "backend/methods/kv_params.h"
#include "backend/types/error.h"

namespace qs {
namespace {

double width_param(const ParamSet& params, const std::string& key) { return std::stod(word_param(params, key)); }
bool flag_param(const ParamSet& params, const std::string& key) { return std::get<bool>(params.at(key)); }
double real_param(const ParamSet& params, const std::string& key) { return std::get<double>(params.at(key)); }

ParameterType store_of(const std::string& word) {
  if (word == "f32") return ParameterType::F32;
  if (word == "e4m3") return ParameterType::E4M3;
  return word == "e5m2" ? ParameterType::E5M2 : ParameterType::F16;
}

[[noreturn]] void refuse(const std::string& why) { throw Error(ErrorCode::InvalidArgument, "skvq: " + why); }

std::vector<float> floats_of(const KvLayerArtifact& artifact, const std::string& name, bool positive) {
  const auto found = artifact.find(name);
  if (found == artifact.end()) return {};
  if (!found->second.defined() || found->second.dim() != 1 || found->second.numel() == 0 ||
      !at::isFloatingType(found->second.scalar_type()))
    refuse("the calibration's '" + name + "' is no list of numbers. Calibrate again.");
  const at::Tensor values = found->second.to(at::kFloat).contiguous();
  const float* const first = values.data_ptr<float>();
  std::vector<float> result(first, first + values.numel());
  for (const float value : result) {
    if (!std::isfinite(value) || (positive && value <= 0.0f))
      refuse("the calibration's '" + name + "' holds " + std::to_string(value) + ". Calibrate again.");
  }
  return result;
}

at::Tensor tensor_of(const KvLayerArtifact& artifact, const std::string& name) {
  const auto found = artifact.find(name);
  return found == artifact.end() ? at::Tensor() : found->second;
}

/// Attention that every token of a prompt received, summed over queries and heads. @return f64 [tokens]
at::Tensor accumulated_attention(const at::Tensor& query, const at::Tensor& key, const CacheShape& shape) {
  const at::Tensor q = query.to(at::kFloat), k = key.to(at::kFloat);
  const std::int64_t heads = q.size(0), tokens = q.size(1), kv_heads = k.size(0);
  const double scale =
      shape.score_scale > 0.0 ? shape.score_scale : 1.0 / std::sqrt(static_cast<double>(shape.head_dim));
  at::Tensor sums = at::zeros({tokens}, at::kDouble);
  constexpr std::int64_t kRows = 64;
  for (std::int64_t begin = 0; begin < tokens; begin += kRows) {
    const std::int64_t rows = std::min(kRows, tokens - begin), seen = begin + rows;
    const at::Tensor part = q.narrow(1, begin, rows).reshape({kv_heads, heads / kv_heads * rows, q.size(2)});
    at::Tensor scores = at::bmm(part, k.narrow(1, 0, seen).transpose(1, 2)).mul_(scale).view({heads, rows, seen});
    if (shape.score_softcap > 0.0) scores = at::tanh(scores / shape.score_softcap) * shape.score_softcap;
    const at::Tensor past = at::arange(begin, begin + rows, at::kLong).unsqueeze(1) - at::arange(seen, at::kLong);
    at::Tensor hidden = past < 0;
    if (shape.sliding_window > 0) hidden = at::logical_or(hidden, past >= shape.sliding_window);
    scores.masked_fill_(hidden, -std::numeric_limits<double>::infinity());
    sums.narrow(0, 0, seen).add_(at::softmax(scores, -1).to(at::kDouble).sum(at::IntArrayRef{0, 1}));
  }
  return sums;
}

}  // namespace

bool skvq_needs_artifact(const ParamSet& params) {
  return flag_param(params, "reorder") || flag_param(params, "smooth") || word_param(params, "clip_rule") != "fixed";
}

Skvq::Skvq(const ParamSet& params, const KvLayerArtifact* artifact) {
  key_.bits = width_param(params, "k_bits");
  value_.bits = width_param(params, "v_bits");
  group_size_ = int_param(params, "group_size");
  window_ = int_param(params, "window");
  sink_tokens_ = int_param(params, "sink_tokens");
  reorder_ = flag_param(params, "reorder");
  smooth_ = flag_param(params, "smooth");
  pre_rope_ = flag_param(params, "pre_rope");
  clip_ = real_param(params, "clip");
  searches_clip_ = word_param(params, "clip_rule") != "fixed";
  centre_clip_ = word_param(params, "clip_mode") == "centre";
  rounded_codes_ = flag_param(params, "rounded_parameters");
  two_bit_container_ = word_param(params, "container") == "2bit";
  store_ = store_of(word_param(params, "store"));
  compute_ = compute_param(params);
  const std::string& keep = word_param(params, "keep");
  keep_ = keep == "h2o" ? Keep::Attention : keep == "random" ? Keep::Random : Keep::None;
  quantized_share_ = real_param(params, "quantized_share");
  if (clip_ <= 0.5) refuse("'clip' must be more than 0.5 and at most 1, found " + std::to_string(clip_) + ".");
  if (smooth_ && reorder_ && word_param(params, "statistic") == "histogram")
    refuse("statistic=histogram compares channels before they are smoothed; use minmax or absmax with smooth=true.");
  if (keep_ != Keep::None && pre_rope_) refuse("keep=" + keep + " needs keys after rotation; set pre_rope=false.");
  if (artifact != nullptr) read_artifact(*artifact);
}

void Skvq::read_artifact(const KvLayerArtifact& artifact) {
  for (const auto& [side, prefix] : {std::pair{&key_, "k_"}, std::pair{&value_, "v_"}}) {
    const std::string name = prefix;
    if (reorder_) {
      side->groups = ChannelGroups::from(tensor_of(artifact, name + "order"), tensor_of(artifact, name + "start"),
                                         side == &key_ ? "keys" : "values");
    }
    if (searches_clip_) {
      side->clip = floats_of(artifact, name + "clip", true);
      for (const float alpha : side->clip) {
        if (alpha > 1.0f) refuse("the calibration's '" + name + "clip' holds " + std::to_string(alpha) + ".");
      }
      if (side->clip.empty()) refuse("the calibration has no '" + name + "clip'. Calibrate with clip=search.");
    }
    if (smooth_) {
      side->smooth = floats_of(artifact, name + "smooth", true);
      if (side->smooth.empty()) refuse("the calibration has no '" + name + "smooth'. Calibrate with smooth=true.");
    }
  }
  calibrated_ = true;
}

CodeContainer Skvq::container(KvRole role) const {
  const double bits = side(role).bits;
  if (bits == 1.5) return two_bit_container_ ? CodeContainer::Bits2 : CodeContainer::Trits;
  return static_cast<CodeContainer>(static_cast<int>(bits));
}

SkvqQuantizer Skvq::quantizer(KvRole role, std::int64_t width) const {
  const Side& chosen = side(role);
  if ((reorder_ || smooth_ || searches_clip_) && !calibrated_) {
    refuse(std::string("this setup learns ") + (reorder_ ? "the order of the channels" : "from a text") +
           " and has no calibration. Calibrate it first (quantoscope-cli calibrate) or set reorder=false, smooth=false "
           "and a fixed clip.");
  }
  SkvqQuantizer result;
  result.top = chosen.bits == 1.5 ? 2 : (1 << static_cast<int>(chosen.bits)) - 1;
  result.centre_clip = centre_clip_;
  result.rounded_codes = rounded_codes_;
  result.compute = compute_;
  result.store = store_;
  if (chosen.groups) {
    result.groups = *chosen.groups;
  } else if (width % group_size_ == 0) {
    result.groups = ChannelGroups::blocks(width, group_size_);
  }
  if (result.groups.width() != width) {
    refuse("the " + std::string(role_name(role)) + "s have " + std::to_string(width) + " channels a token, " +
           (chosen.groups ? "the calibration " + std::to_string(result.groups.width()) + ". Calibrate with this model."
                          : "which the group size " + std::to_string(group_size_) + " does not divide."));
  }
  result.clip = searches_clip_ ? chosen.clip : std::vector<float>{static_cast<float>(clip_)};
  result.smooth = chosen.smooth;
  const auto clips = static_cast<std::int64_t>(result.clip.size());
  if ((clips != 1 && clips != result.groups.groups()) ||
      (!result.smooth.empty() && static_cast<std::int64_t>(result.smooth.size()) != width))
    refuse("the calibration's clip ratios or factors do not fit its groups. Calibrate again.");
  return result;
}

QuantizedTensor Skvq::quantize(const at::Tensor& x, KvRole role, const JobContext& job) const {
  check_kv_tensor(x);
  check_finite(x, role);
  job.checkpoint(0, 1, "SKVQ");
  const std::int64_t kv_heads = x.size(0), tokens = x.size(1), head_dim = x.size(2), width = kv_heads * head_dim;
  const at::Tensor held = as_stored(x, store_ == ParameterType::F32 ? GroupStore::F32 : GroupStore::F16);
  QuantizedTensor result;
  if (off(role)) {
    result.values = held.to(x.scalar_type());
    result.codes = at::full(x.sizes(), 255, at::kByte);
    result.scale = result.group_min = at::zeros({tokens, 0});
    result.full_precision = at::ones(x.sizes(), at::kBool);
    return result;
  }
  const SkvqQuantizer rules = quantizer(role, width);
  const TokenCodes codes = quantize_channel_groups(held.transpose(0, 1).reshape({tokens, width}), rules);
  const auto by_head = [&](const at::Tensor& t) {
    return t.reshape({tokens, kv_heads, head_dim}).transpose(0, 1).contiguous();
  };
  result.values = by_head(codes.values).to(x.scalar_type());
  result.codes = by_head(codes.codes);
  result.scale = codes.scale;
  result.group_min = codes.group_min;
  result.levels = rules.top + 1;
  return result;
}

QuantizedTensor Skvq::quantize_prompt(const KvPrompt& prompt, KvRole role, const JobContext& job) const {
  const at::Tensor& x = role == KvRole::Key ? prompt.key : prompt.value;
  QuantizedTensor result = quantize(x, role, job);
  if (keep_ == Keep::None || off(role)) return result;
  const std::int64_t tokens = x.size(1);
  const TokenRange range = after_prefill(role, tokens);
  at::Tensor rank;
  if (keep_ == Keep::Attention && prompt.query.defined()) {
    rank = accumulated_attention(prompt.query, prompt.key, prompt.shape);
  } else {
    std::mt19937_64 generator(42);
    std::vector<double> draws(static_cast<std::size_t>(tokens));
    for (double& draw : draws) draw = static_cast<double>(generator() >> 11);
    rank = at::tensor(draws, at::kDouble);
  }
  const auto kept =
      static_cast<std::int64_t>(std::llround((1.0 - quantized_share_) * static_cast<double>(range.size())));
  if (kept <= 0) return result;
  const at::Tensor best = std::get<1>(rank.narrow(0, range.begin, range.size()).sort(0, true));
  const at::Tensor index = best.narrow(0, 0, kept) + range.begin;
  result.values.index_copy_(1, index, held_in_full_precision(x).index_select(1, index));
  result.codes.index_fill_(1, index, 255);
  result.full_precision = at::zeros(x.sizes(), at::kBool);
  result.full_precision.index_fill_(1, index, true);
  return result;
}

TokenRange Skvq::seen_by_query(KvRole role, std::int64_t position) const { return after_prefill(role, position + 1); }

TokenRange Skvq::after_prefill(KvRole role, std::int64_t tokens) const {
  if (off(role) || tokens <= sink_tokens_ + window_) return {};
  return {sink_tokens_, tokens - window_};
}

at::Tensor Skvq::held_in_full_precision(const at::Tensor& x) const {
  return as_stored(x, store_ == ParameterType::F32 ? GroupStore::F32 : GroupStore::F16).to(x.scalar_type());
}

std::string Skvq::cannot_stream() const {
  if (keep_ == Keep::None) return {};
  return "skvq with keep=h2o or keep=random chooses tokens of a complete prompt, which is not known while decoding; it "
         "is for comparison. Set keep=none to decode.";
}

ScaleGroups Skvq::scale_groups(KvRole role, const CacheShape& shape) const {
  if (off(role)) return {};
  const ChannelGroups groups = quantizer(role, shape.kv_heads * shape.head_dim).groups;
  return {.tokens = 1,
          .starts = {groups.start.begin(), groups.start.end() - 1},
          .order = {groups.order.begin(), groups.order.end()}};
}

std::unique_ptr<KvCache> Skvq::make_cache(const CacheShape& shape) const {
  if (const std::string reason = cannot_stream(); !reason.empty()) throw Error(ErrorCode::Unsupported, reason);
  check_fits(shape);
  return make_skvq_cache(*this, shape);
}

double Skvq::groups_of(KvRole role, std::int64_t width) const {
  const Side& chosen = side(role);
  return chosen.groups ? static_cast<double>(chosen.groups->groups())
                       : static_cast<double>(width) / static_cast<double>(group_size_);
}

double Skvq::nominal_bits(KvRole role, std::int64_t width) const {
  if (off(role)) return 16.0;
  const double parameter_bits = 8.0 * static_cast<double>(bytes_of(store_));
  return side(role).bits + 2.0 * parameter_bits * groups_of(role, width) / static_cast<double>(width);
}

double Skvq::stored_bits(KvRole role, std::int64_t kv_heads, std::int64_t head_dim) const {
  const std::int64_t width = kv_heads * head_dim;
  if (off(role)) return store_ == ParameterType::F32 ? 32.0 : 16.0;
  const double parameters = 2.0 * static_cast<double>(bytes_of(store_)) * groups_of(role, width);
  return 8.0 * (static_cast<double>(GroupedRows::code_bytes(kv_heads, head_dim, container(role))) + parameters) /
         static_cast<double>(width);
}

double Skvq::role_bits(KvRole role, const CacheShape& shape, std::int64_t tokens) const {
  const double held_bits = store_ == ParameterType::F32 ? 32.0 : 16.0;
  const double all = static_cast<double>(tokens);
  double quantized = static_cast<double>(after_prefill(role, tokens).size());
  if (keep_ != Keep::None) quantized -= std::round((1.0 - quantized_share_) * quantized);
  return (quantized * stored_bits(role, shape.kv_heads, shape.head_dim) + (all - quantized) * held_bits) / all;
}

double Skvq::effective_bits(const CacheShape& shape, std::int64_t tokens) const {
  if (tokens <= 0) return 0.0;
  return (role_bits(KvRole::Key, shape, tokens) + role_bits(KvRole::Value, shape, tokens)) / 2.0;
}

void Skvq::check_fits(const CacheShape& shape) const {
  check_head_counts(shape);
  check_packed_head_dim("skvq", shape);
  const std::int64_t width = shape.kv_heads * shape.head_dim;
  if (width % group_size_ != 0) {
    const std::int64_t nearest = nearest_divisor(width, group_size_, 1, 16, 256);
    refuse("group_size = " + std::to_string(group_size_) + " does not divide the " + std::to_string(width) +
           " channels of a token (" + std::to_string(shape.kv_heads) + " KV heads of " +
           std::to_string(shape.head_dim) + "). " +
           (nearest > 0 ? "The nearest that fits is " + std::to_string(nearest) + "."
                        : "No group size of 16 to 256 fits this model; use another method, such as rtn."));
  }
  for (const KvRole role : {KvRole::Key, KvRole::Value}) {
    if (calibrated_ && !off(role)) quantizer(role, width);
  }
}

}  // namespace qs
