#include "backend/methods/decoquant.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "backend/methods/declared_methods.h"
#include "backend/methods/decoquant_cache.h"
#include "backend/methods/kv_params.h"
#include "backend/types/error.h"

namespace qs {
namespace {

double frobenius(const at::Tensor& x) { return std::sqrt(x.to(at::kDouble).square().sum().item<double>()); }

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

/// Every report compares with what plain rounding of the same width does to the same tokens.
std::string comparison(const at::Tensor& rows, const at::Tensor& values, const GroupQuantizer& quantizer) {
  const double norm = frobenius(rows);
  if (norm == 0.0) return {};
  const double ours = frobenius(values - rows) / norm;
  const double plain = frobenius(quantize_groups(rows, quantizer).values - rows) / norm;
  const std::string figures = "relative error " + number(ours) + ", " + number(plain) +
                              " for rounding each token to the same width (rtn:scheme=token_sym)";
  return ours <= plain
             ? "Compared with plain rounding: " + figures + "."
             : "Worse than plain rounding: " + figures + "; the channels of a block are hardly correlated here.";
}

}  // namespace

Decoquant::Decoquant(const ParamSet& params) {
  quantizer_ = {.bits = int_param(params, "bits"), .symmetric = true, .store = store_param(params)};
  mode_ = word_param(params, "mode") == "channel_by_token" ? Mode::ChannelByToken : Mode::SplitHidden;
  n1_ = int_param(params, "n1");
  n2_ = int_param(params, "n2");
  factors_ = int_param(params, "factors");
  flush_len_ = int_param(params, "flush_len");
  local_remainder_ = std::get<bool>(params.at("local_remainder"));
  force_ = std::get<bool>(params.at("force"));
  if (quantizer_.bits != 2 && quantizer_.bits != 4 && quantizer_.bits != 8) {
    throw Error(ErrorCode::InvalidArgument, "'bits' of decoquant must be 2, 4 or 8, found " +
                                                std::to_string(quantizer_.bits) + "; the nearest is " +
                                                (quantizer_.bits < 6 ? "4" : "8") + ".");
  }
}

std::int64_t Decoquant::block() const {
  std::int64_t block = 1;
  for (std::int64_t factor = 1; factor < factors_; ++factor) block *= n2_;
  return block;
}

std::int64_t Decoquant::small_factor_elements() const {
  std::int64_t elements = 0, left = block(), rest = block();
  for (std::int64_t factor = 1; factor < factors_; ++factor) {
    rest /= n2_;
    const std::int64_t right = std::min(left * n2_, rest);
    elements += left * n2_ * right;
    left = right;
  }
  return elements;
}

Decoquant::Segment Decoquant::decompose(const at::Tensor& rows) const {
  Segment segment;
  segment.factors = two_factors(rows.reshape({-1, block()}));
  const std::vector<std::int64_t> widths(static_cast<std::size_t>(factors_ - 1), n2_);
  segment.small = SmallFactor(
      factors_ == 2 ? std::vector<at::Tensor>{segment.factors.small} : split_small_factor(segment.factors, widths),
      quantizer_.store);
  return segment;
}

GroupCodes Decoquant::quantize_matrix(const at::Tensor& rows) const {
  if (mode_ == Mode::ChannelByToken) return quantize_channels(rows);
  const Segment segment = decompose(rows);
  GroupCodes made = quantize_groups(segment.factors.large.view(rows.sizes()), quantizer_);
  made.values = at::matmul(made.values.reshape({-1, block()}), segment.small.matrix()).view(rows.sizes());
  return made;
}

GroupCodes Decoquant::quantize_channels(const at::Tensor& rows) const {
  const std::int64_t tokens = rows.size(0), channels = rows.size(1);
  if (tokens > channels / 8 && !force_) {
    throw Error(ErrorCode::InvalidArgument,
                "decoquant: mode=channel_by_token keeps tokens x tokens values in 16 bits and suits at most " +
                    std::to_string(channels / 8) + " tokens of " + std::to_string(channels) + " channels, found " +
                    std::to_string(tokens) + ". Use mode=split_hidden, fewer tokens, or force=true.");
  }
  const TwoFactors factors = two_factors(rows.t());
  const SmallFactor small({factors.small}, quantizer_.store);
  GroupCodes made = quantize_groups(factors.large, quantizer_);
  made.values = at::matmul(made.values, small.matrix()).t().contiguous();
  made.codes = made.codes.t().contiguous();
  return made;
}

QuantizedTensor Decoquant::quantize_segments(const at::Tensor& x, const std::vector<std::int64_t>& ends,
                                             const JobContext& job) const {
  const std::int64_t kv_heads = x.size(0), tokens = x.size(1), head_dim = x.size(2);
  if (mode_ == Mode::SplitHidden) check_fits({.heads = kv_heads, .kv_heads = kv_heads, .head_dim = head_dim});
  const at::Tensor rows =
      as_stored(x, quantizer_.store).transpose(0, 1).reshape({tokens, kv_heads * head_dim}).contiguous();
  at::Tensor values = rows.clone(), codes = at::full(rows.sizes(), 255, at::kByte);
  std::vector<at::Tensor> scales;
  std::int64_t begin = 0;
  for (std::size_t i = 0; i < ends.size(); ++i) {
    job.checkpoint(static_cast<std::int64_t>(i), static_cast<std::int64_t>(ends.size()), "DecoQuant");
    const std::int64_t count = ends[i] - begin;
    if (count == 0) continue;
    const GroupCodes made = quantize_matrix(rows.narrow(0, begin, count));
    values.narrow(0, begin, count).copy_(made.values);
    codes.narrow(0, begin, count).copy_(made.codes);
    scales.push_back(made.scale);
    begin = ends[i];
  }
  QuantizedTensor result;
  result.levels = quantizer_.levels();
  const auto by_head = [&](const at::Tensor& t) {
    return t.reshape({tokens, kv_heads, head_dim}).transpose(0, 1).contiguous();
  };
  result.values = by_head(values).to(x.scalar_type());
  result.codes = by_head(codes);
  result.scale = scales.empty() ? at::zeros({0}) : at::cat(scales);
  if (begin < tokens) {
    result.full_precision = at::zeros(x.sizes(), at::kBool);
    result.full_precision.narrow(1, begin, tokens - begin).fill_(true);
  }
  if (begin > 0) {
    const std::string note = comparison(rows.narrow(0, 0, begin), values.narrow(0, 0, begin), quantizer_);
    if (!note.empty()) result.notes.push_back(note);
  }
  return result;
}

QuantizedTensor Decoquant::quantize(const at::Tensor& x, KvRole role, const JobContext& job) const {
  check_kv_tensor(x);
  check_finite(x, role);
  return quantize_segments(x, {after_prefill(role, x.size(1)).end}, job);
}

QuantizedTensor Decoquant::quantize_stream(const KvPrompt& prompt, KvRole role, const JobContext& job) const {
  const at::Tensor& x = role == KvRole::Key ? prompt.key : prompt.value;
  check_kv_tensor(x);
  check_finite(x, role);
  std::vector<std::int64_t> ends;
  for (std::int64_t end = flush_len_; end <= x.size(1); end += flush_len_) ends.push_back(end);
  return quantize_segments(x, ends, job);
}

TokenRange Decoquant::seen_by_query(KvRole, std::int64_t position) const {
  return {0, position / flush_len_ * flush_len_};  // a flush comes after attention
}

TokenRange Decoquant::after_prefill(KvRole, std::int64_t tokens) const {
  return {0, local_remainder_ ? tokens / flush_len_ * flush_len_ : tokens};
}

at::Tensor Decoquant::held_in_full_precision(const at::Tensor& x) const {
  return as_stored(x, quantizer_.store).to(x.scalar_type());
}

std::string Decoquant::cannot_stream() const {
  if (mode_ == Mode::SplitHidden) return {};
  return "decoquant with mode=channel_by_token keeps a 16-bit factor of tokens x tokens values; it is there for "
         "comparison. Use mode=split_hidden.";
}

ScaleGroups Decoquant::scale_groups(KvRole, const CacheShape& shape) const {
  const std::int64_t channels = shape.kv_heads * shape.head_dim;
  if (mode_ == Mode::ChannelByToken) return {.tokens = 0, .starts = even_starts(channels, 1), .order = {}};
  return {.tokens = 1, .starts = {0}, .order = {}};
}

std::unique_ptr<KvCache> Decoquant::make_cache(const CacheShape& shape) const {
  if (const std::string why = cannot_stream(); !why.empty()) throw Error(ErrorCode::Unsupported, why);
  check_fits(shape);
  return make_decoquant_cache(*this, shape);
}

double Decoquant::effective_bits(const CacheShape& shape, std::int64_t tokens) const {
  if (tokens <= 0) return 0.0;
  const double value_bits = 8.0 * static_cast<double>(quantizer_.parameter_bytes());
  const auto channels = static_cast<double>(shape.kv_heads * shape.head_dim);
  const auto quantized = static_cast<double>(after_prefill(KvRole::Key, tokens).size());
  const auto all = static_cast<double>(tokens);
  double bits = (all - quantized) * channels * value_bits;
  if (quantized > 0.0) {
    const bool by_channel = mode_ == Mode::ChannelByToken;
    const double small = by_channel ? quantized * quantized : static_cast<double>(small_factor_elements());
    bits += quantized * channels * quantizer_.bits + value_bits * ((by_channel ? channels : quantized) + small);
  }
  return bits / (all * channels);
}

void Decoquant::check_fits(const CacheShape& shape) const {
  check_head_counts(shape);
  check_packed_head_dim("decoquant", shape);
  if (mode_ == Mode::ChannelByToken) return;
  const std::int64_t channels = shape.kv_heads * shape.head_dim;
  if (shape.head_dim % block() != 0) {
    std::int64_t nearest = 0;
    for (std::int64_t candidate = 2; candidate <= shape.head_dim; ++candidate) {
      std::int64_t size = 1;
      for (std::int64_t factor = 1; factor < factors_ && size <= shape.head_dim; ++factor) size *= candidate;
      if (shape.head_dim % size != 0) continue;
      if (nearest == 0 || std::llabs(candidate - n2_) < std::llabs(nearest - n2_)) nearest = candidate;
    }
    throw Error(
        ErrorCode::InvalidArgument,
        "decoquant: a block of " + std::to_string(block()) + " channels (n2 = " + std::to_string(n2_) + ", factors = " +
            std::to_string(factors_) + ") does not divide head_dim = " + std::to_string(shape.head_dim) + ". " +
            (nearest > 0 ? "The nearest n2 that fits is " + std::to_string(nearest) + "." : "Use fewer factors."));
  }
  if (n1_ != 0 && n1_ * block() != channels) {
    throw Error(ErrorCode::InvalidArgument, "decoquant: n1 = " + std::to_string(n1_) + " blocks of " +
                                                std::to_string(block()) + " channels are not the " +
                                                std::to_string(channels) + " channels of this model; n1 must be " +
                                                std::to_string(channels / block()) + ", or 0 to follow the model.");
  }
}

KvMethodEntry decoquant_method() {
  return {
      {.id = "decoquant",
       .title = "DecoQuant",
       .family = MethodFamily::Kv,
       .paper = "arXiv:2405.12591",
       .citation = "Liu et al., Unlocking Data-free Low-bit Quantization with Matrix Decomposition for KV Cache "
                   "Compression, ACL 2024",
       .summary = "The cache matrix is factorised exactly; the large factor is quantized, the small one with the "
                  "outliers stays in 16 bits.",
       .params = {{.key = "bits",
                   .label = "Bits",
                   .help = "Width of a code of the large factor: 2, 4 or 8; fewer is smaller and worse.",
                   .fallback = 4,
                   .domain = IntRange{2, 8},
                   .unit = "bit"},
                  {.key = "mode",
                   .label = "Matrix",
                   .help = "split_hidden factorises blocks of channels; channel_by_token the transposed matrix, for "
                           "comparison only.",
                   .fallback = std::string("split_hidden"),
                   .domain = Choices{{"split_hidden", "channel_by_token"}}},
                  {.key = "n1",
                   .label = "Blocks",
                   .help = "Blocks of a token; 0 takes as many as the model needs.",
                   .fallback = 0,
                   .domain = IntRange{0, 65536},
                   .advanced = true},
                  {.key = "n2",
                   .label = "Block width",
                   .help = "Channels of a small tensor; wider finds more correlation and costs more.",
                   .fallback = 16,
                   .domain = IntRange{2, 512},
                   .unit = "channels"},
                  {.key = "factors",
                   .label = "Factors",
                   .help = "Tensors of the decomposition; a block has n2^(factors - 1) channels. More lower the "
                           "error, with diminishing returns, and cost more.",
                   .fallback = 2,
                   .domain = IntRange{2, 4},
                   .aliases = {"n"}},
                  {.key = "flush_len",
                   .label = "Flush length",
                   .help = "New tokens that wait in full precision until they are decomposed together.",
                   .fallback = 1024,
                   .domain = IntRange{64, 1 << 20},
                   .unit = "tokens",
                   .aliases = {"flush"}},
                  {.key = "local_remainder",
                   .label = "Leave the prompt's remainder",
                   .help = "Keep the last tokens of a prompt in full precision, up to a multiple of the flush "
                           "length.",
                   .fallback = false},
                  {.key = "force",
                   .label = "Any length by token",
                   .help = "Allow channel_by_token beyond an eighth of the channels, where its 16-bit factor is "
                           "large.",
                   .fallback = false,
                   .advanced = true},
                  store_spec()},
       .presets = {{.label = "DecoQuant-4, paper setting",
                    .params = {{"bits", 4}, {"n2", 16}, {"flush_len", 1024}},
                    .source = "arXiv:2405.12591"},
                   {.label = "DecoQuant-8, paper setting",
                    .params = {{"bits", 8}, {"n2", 16}, {"flush_len", 1024}},
                    .source = "arXiv:2405.12591"},
                   {.label = "DecoQuant-2, paper setting",
                    .params = {{"bits", 2}, {"n2", 16}, {"flush_len", 1024}},
                    .source = "arXiv:2405.12591"},
                   {.label = "DecoQuant-4, blocks of 32",
                    .params = {{"bits", 4}, {"n2", 32}},
                    .source = "lpyhdzx/DecoQuant_code, shape 64 x 32"}},
       .effective_bits_formula =
           "bits + 16 / (kv_heads * head_dim) + 16 * small factor / (elements of the segment); the newest tokens, "
           "fewer than flush_len, at 16"},
      [](const ParamSet& params, const KvLayerArtifact*) -> std::unique_ptr<KvMethod> {
        return std::make_unique<Decoquant>(params);
      }};
}

}  // namespace qs
