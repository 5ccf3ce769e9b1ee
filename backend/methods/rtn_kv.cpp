#include "backend/methods/rtn_kv.h"

#include "backend/methods/declared_methods.h"
#include "backend/methods/kv_params.h"
#include "backend/methods/kv_reference.h"
#include "backend/methods/rtn_kv_cache.h"
#include "backend/types/error.h"

namespace qs {
namespace {

RtnKv::Scheme scheme_of(const std::string& word) {
  if (word == "channel_asym") return RtnKv::Scheme::ChannelAsym;
  if (word == "token_sym") return RtnKv::Scheme::TokenSym;
  return RtnKv::Scheme::TokenAsym;
}

}  // namespace

RtnKv::RtnKv(const ParamSet& params) : scheme_(scheme_of(word_param(params, "scheme"))) {
  quantizer_ = {.bits = int_param(params, "bits"),
                .symmetric = scheme_ == Scheme::TokenSym,
                .compute = compute_param(params),
                .store = store_param(params)};
  group_size_ = int_param(params, "group_size");
  if (scheme_ == Scheme::TokenSym && quantizer_.bits == 1) {
    throw Error(
        ErrorCode::InvalidArgument,
        "'bits' of rtn must be 2, 3, 4 or 8 with scheme=token_sym (one symmetric bit has no level but 0), found 1.");
  }
  check_code_width("rtn", "bits", quantizer_.bits, true);
}

std::int64_t RtnKv::token_group(std::int64_t width) const {
  return scheme_ == Scheme::TokenSym || group_size_ == 0 ? width : group_size_;
}

QuantizedTensor RtnKv::quantize(const at::Tensor& x, KvRole role, const JobContext& job) const {
  check_kv_tensor(x);
  check_finite(x, role);
  job.checkpoint(0, 1, "RTN");
  if (per_channel(role)) return quantize_channel_blocks(x, group_size_ > 0 ? group_size_ : x.size(1), quantizer_);
  const std::int64_t width = x.size(0) * x.size(2);
  if (width % token_group(width) != 0) check_fits({.heads = x.size(0), .kv_heads = x.size(0), .head_dim = x.size(2)});
  return quantize_token_runs(x, token_group(width), quantizer_);
}

TokenRange RtnKv::seen_by_query(KvRole role, std::int64_t position) const { return after_prefill(role, position + 1); }

TokenRange RtnKv::after_prefill(KvRole role, std::int64_t tokens) const {
  if (per_channel(role) && group_size_ > 0) return {0, tokens / group_size_ * group_size_};
  return {0, tokens};
}

at::Tensor RtnKv::held_in_full_precision(const at::Tensor& x) const {
  return as_stored(x, quantizer_.store).to(x.scalar_type());
}

std::string RtnKv::cannot_stream() const {
  if (scheme_ != Scheme::ChannelAsym || group_size_ > 0) return {};
  return "rtn with scheme=channel_asym and group_size=0 takes one range over the whole prompt, which is not known "
         "while "
         "decoding; it is for analysis. Give a group_size to decode.";
}

ScaleGroups RtnKv::scale_groups(KvRole role, const CacheShape& shape) const {
  const std::int64_t channels = shape.kv_heads * shape.head_dim;
  if (per_channel(role)) return {.tokens = group_size_, .starts = even_starts(channels, 1), .order = {}};
  return {.tokens = 1, .starts = even_starts(channels, token_group(channels)), .order = {}};
}

std::unique_ptr<KvCache> RtnKv::make_cache(const CacheShape& shape) const {
  if (const std::string reason = cannot_stream(); !reason.empty()) throw Error(ErrorCode::Unsupported, reason);
  check_fits(shape);
  return make_rtn_kv_cache(*this, shape);
}

double RtnKv::effective_bits(const CacheShape& shape, std::int64_t tokens) const {
  if (tokens <= 0) return 0.0;
  const double parameter_bits = 8.0 * static_cast<double>(quantizer_.parameter_bytes());
  const double parameters = quantizer_.symmetric ? parameter_bits : 2.0 * parameter_bits;
  const auto side = [&](KvRole role) {
    const double all = static_cast<double>(tokens);
    const double quantized = static_cast<double>(after_prefill(role, tokens).size());
    const double group = per_channel(role) ? (group_size_ > 0 ? static_cast<double>(group_size_) : all)
                                           : static_cast<double>(token_group(shape.kv_heads * shape.head_dim));
    return (quantized * (quantizer_.bits + parameters / group) + (all - quantized) * parameter_bits) / all;
  };
  return (side(KvRole::Key) + side(KvRole::Value)) / 2.0;
}

void RtnKv::check_fits(const CacheShape& shape) const {
  check_head_counts(shape);
  const std::int64_t width = shape.kv_heads * shape.head_dim;
  if (width % token_group(width) != 0) {
    const std::int64_t nearest = nearest_divisor(width, group_size_, 1, 1, width);
    throw Error(ErrorCode::InvalidArgument,
                "rtn: group_size = " + std::to_string(group_size_) + " does not divide the " + std::to_string(width) +
                    " channels of a token (" + std::to_string(shape.kv_heads) + " KV heads of " +
                    std::to_string(shape.head_dim) + "). The nearest that fits is " + std::to_string(nearest) +
                    "; 0 takes all channels as one group.");
  }
  check_packed_head_dim("rtn", shape);
}

KvMethodEntry rtn_kv_method() {
  return {
      {.id = "rtn",
       .title = "RTN",
       .family = MethodFamily::Kv,
       .paper = "",
       .citation = "Round to nearest: the baseline of the KV-cache quantization papers",
       .summary = "Rounds every token as it arrives to the nearest of 2^bits levels; no window, no calibration.",
       .params = {{.key = "scheme",
                   .label = "Scheme",
                   .help = "token_asym: scale and minimum per token; channel_asym: keys per channel, values per token; "
                           "token_sym: one symmetric scale per token, group size unused.",
                   .fallback = std::string("token_asym"),
                   .domain = Choices{{"token_asym", "channel_asym", "token_sym"}}},
                  {.key = "bits",
                   .label = "Bits",
                   .help = "Width of a code: 2, 3, 4 or 8 (1 for the asymmetric schemes); fewer is smaller and worse.",
                   .fallback = 4,
                   .domain = IntRange{1, 8},
                   .unit = "bit"},
                  {.key = "group_size",
                   .label = "Group size",
                   .help =
                       "Channels of a token (or tokens of a key channel) that share one scale; 0 takes all of them, "
                       "smaller is better and larger in memory.",
                   .fallback = 128,
                   .domain = IntRange{0, 65536},
                   .aliases = {"g"}},
                  compute_spec(),
                  store_spec()},
       .presets = {{.label = "RTN-4, groups of 128", .params = {}, .source = "arXiv:2405.06219, baseline"},
                   {.label = "RTN-2, groups of 32",
                    .params = {{"bits", 2}, {"group_size", 32}},
                    .source = "arXiv:2402.02750, per-token ablation"},
                   {.label = "RTN-4 symmetric, whole token",
                    .params = {{"scheme", std::string("token_sym")}, {"bits", 4}},
                    .source = "arXiv:2405.12591, baseline"}},
       .effective_bits_formula =
           "bits + 32 / group_size (f16 scale and minimum); token_sym: bits + 16 / channels of a token"},
      [](const ParamSet& params, const KvLayerArtifact*) -> std::unique_ptr<KvMethod> {
        return std::make_unique<RtnKv>(params);
      }};
}

}  // namespace qs
